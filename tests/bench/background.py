"""What a node has to carry beside the measured flow: full maps, flows, an ipcache that never rests (DESIGN, 11)."""

from __future__ import annotations

import ipaddress
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from ciliate.maps.map import Map
from ciliate.model.base import pack_address
from ciliate.model.endpoint import PEER_STAMPS_MAP, peer_slot
from ciliate.model.ipcache import IPCACHE_ENTRY, IPCACHE_KEY, IPCACHE_MAP
from ciliate.model.policy import POLICY_ENTRY, POLICY_KEY, POLICY_MAP, POLICY_PREFIX_FULL

from tests.bench import settings
from tests.bench.lab import Lab
from tests.bench.spaces import Link
from tests.node.traffic import Traffic

STRANGE_POLICY = 1 << 30
"""Policy ids from here on belong to no endpoint: entries under them only make the map as large as a cluster's."""
_V4 = int(ipaddress.IPv4Address("100.64.0.1"))
_V6 = int(ipaddress.IPv6Address("fd77::1"))
FLOWS_PORT = 7900


def strange_addresses(count: int) -> list[bytes]:
    """Packed addresses that no pod has, half of each family."""
    return [
        pack_address(str(ipaddress.IPv4Address(_V4 + i) if i % 2 else ipaddress.IPv6Address(_V6 + i * 65537)))
        for i in range(count)
    ]


def fill_policy(policy: Map, count: int = settings.BACKGROUND_POLICY_ENTRIES) -> None:
    """Add entries for many identities under a few policy ids."""
    keys, values = np.zeros(count, POLICY_KEY), np.zeros(count, POLICY_ENTRY)
    number = np.arange(count)
    keys["prefixlen"] = POLICY_PREFIX_FULL
    keys["policy"] = STRANGE_POLICY + number % 50
    keys["identity"] = 256 + number // 50
    keys["direction"] = number % 2
    keys["protocol"] = 6
    keys["port"] = 80 + number % 7
    values["rule_set"], values["prefixlen"] = 1, 24
    policy.update_batch(keys, values)


def fill_ipcache(ipcache: Map, addresses: list[bytes]) -> None:
    """Add addresses of pods elsewhere."""
    keys, values = np.zeros(len(addresses), IPCACHE_KEY), np.zeros(len(addresses), IPCACHE_ENTRY)
    keys["prefixlen"] = 128
    keys["address"] = np.frombuffer(b"".join(addresses), np.uint8).reshape(-1, 16)
    values["identity"] = 256 + np.arange(len(addresses)) % 10_000
    ipcache.update_batch(keys, values)


class Background:
    """Fills the maps of a lab's node, then keeps flows and changes going on the other CPU until it is left."""

    def __init__(self, lab: Lab, flows: Link, folder: Path) -> None:
        self._lab, self._flows = lab, flows
        self._traffic = Traffic(folder)
        self._stopped = threading.Event()
        self._changer = threading.Thread(target=self._change, name="ipcache changes")
        self._addresses = strange_addresses(settings.BACKGROUND_IPCACHE_ENTRIES)
        self.changes = 0

    def __enter__(self) -> Background:
        fill_policy(self._lab.map(POLICY_MAP))
        fill_ipcache(self._lab.map(IPCACHE_MAP), self._addresses)
        link = self._flows
        self._traffic.serve(link.servers, 4, port=FLOWS_PORT, echo=True, cpu=settings.OTHER_CPU)
        self._traffic.send(
            link.client, link.addresses[4][0], port=FLOWS_PORT, flows=settings.BACKGROUND_FLOWS,
            rate=settings.BACKGROUND_FLOWS, cpu=settings.OTHER_CPU, echoes=True,
        )  # fmt: skip
        self._changer.start()
        return self

    def _change(self) -> None:
        """Give one address another identity, then bump its counter, as policy does: entries first."""
        os.sched_setaffinity(0, {settings.OTHER_CPU})  # of this thread
        ipcache, stamps = self._lab.map(IPCACHE_MAP), self._lab.map(PEER_STAMPS_MAP).mmap(writable=True)
        while not self._stopped.wait(1 / settings.BACKGROUND_CHANGES):
            address = self._addresses[self.changes % len(self._addresses)]
            key, value = np.zeros((), IPCACHE_KEY), np.zeros((), IPCACHE_ENTRY)
            key["prefixlen"], key["address"] = 128, np.frombuffer(address, np.uint8)
            value["identity"] = 256 + self.changes % 10_000
            ipcache.update(key, value)
            stamps[peer_slot(address)] += 1
            self.changes += 1

    def figures(self) -> dict[str, Any]:
        """How much there was, for the report."""
        return {
            "policy entries": settings.BACKGROUND_POLICY_ENTRIES,
            "ipcache entries": len(self._addresses),
            "flows": settings.BACKGROUND_FLOWS,
            "ipcache changes": self.changes,
        }

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._stopped.set()
        self._changer.join()
        self._traffic.__exit__(kind, value, at)
