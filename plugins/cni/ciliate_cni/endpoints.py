"""Endpoints of this node: their durable rows, their ids and generations, and their entries in the kernel's maps."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from ciliate.maps.map import Map
from ciliate.model.base import Row, pack_address
from ciliate.model.endpoint import (
    ENDPOINT_ENTRY,
    ENDPOINT_VALID,
    ENDPOINTS,
    ENDPOINTS_MAX,
    Endpoint,
)
from ciliate.reconciler import MapReconciler
from ciliate.tables.spec import Durability, TableSpec
from msgspec import structs

from ciliate_cni.attach import host_index, host_name
from ciliate_cni.errors import CniError, Code
from ciliate_cni.links import mac_bytes

_ENTRY = struct.Struct("<II16s16s6s6sI")  # ENDPOINT_ENTRY
_NO_ENTRY = np.zeros((), ENDPOINT_ENTRY)
_NO_ADDRESS = bytes(16)
_BLOCK = 1024
_GAP = 1 << 20
"""Between the highest generation that is known after a loss, and the next: so many pods may have come since."""
NAMELESS = "recovered:"
"""How the container_id of a recovered endpoint begins until a call names its container."""


class Reserve(Row, frozen=True):
    """A number below which all of a kind may have been given out. Key: name."""

    name: str
    below: int


RESERVES = TableSpec(
    "cni_reserves",
    Reserve,
    key=("name",),
    durability=Durability.COMMIT,
    doc="Generations reserved in blocks, so that none is given out twice, whatever is deleted or killed.",
)


class Commits(Protocol):
    """The part of the host's tables that is used here."""

    def writer(self, spec: TableSpec[Any]) -> Any: ...

    def commit(self) -> Any: ...


class EndpointMaps:
    """The maps `endpoints` and `endpoint_ips`: every operation on them is idempotent."""

    def __init__(self, endpoints: Map, addresses: Map) -> None:
        self._endpoints = endpoints
        self._addresses = addresses
        self._slots = endpoints.mmap(writable=True)

    def update(self, endpoint: Endpoint) -> None:
        """Write an endpoint's entries: its own first, since an address leads to it. It is valid when it is whole."""
        slots = self._slots
        slots["flags"][endpoint.id] = 0
        slots[endpoint.id] = np.frombuffer(_pack(endpoint, 0), ENDPOINT_ENTRY)[0]
        slots["flags"][endpoint.id] = ENDPOINT_VALID
        number = struct.pack("<I", endpoint.id)
        for address in addresses_of(endpoint):
            self._addresses.update(pack_address(address), number)

    def delete(self, endpoint: Endpoint) -> None:
        """Take an endpoint's entries away; its program drops all that the pod still sends."""
        for address in addresses_of(endpoint):
            if self._addresses.lookup(pack_address(address)) == endpoint.id:
                self._addresses.delete(pack_address(address))
        self._slots["flags"][endpoint.id] = 0
        self._slots[endpoint.id] = _NO_ENTRY

    def reconcile(self, endpoints: Iterable[Endpoint]) -> int:
        """Make both maps equal to all rows, touching only what differs; how many entries that was."""
        rows = {endpoint.id: endpoint for endpoint in endpoints}
        entries = {number: entry_of(endpoint) for number, endpoint in rows.items()}
        owners = {pack_address(address): e.id for e in rows.values() for address in addresses_of(e)}
        done = (
            MapReconciler(self._endpoints).reconcile(entries, complete=True),
            MapReconciler(self._addresses).reconcile(owners, complete=True),
        )
        return sum(one.added + one.changed + one.removed for one in done)


def addresses_of(endpoint: Endpoint) -> list[str]:
    """An endpoint's addresses of both families."""
    return [address for address in (endpoint.ipv4, endpoint.ipv6) if address is not None]


def entry_of(endpoint: Endpoint) -> bytes:
    """An endpoint as the map `endpoints` has it: the bytes of an ENDPOINT_ENTRY."""
    return _pack(endpoint, ENDPOINT_VALID)


def _pack(endpoint: Endpoint, flags: int) -> bytes:
    addresses = [pack_address(a) if a else _NO_ADDRESS for a in (endpoint.ipv4, endpoint.ipv6)]
    macs = (mac_bytes(endpoint.mac), mac_bytes(endpoint.host_mac))
    return _ENTRY.pack(host_index(endpoint.id), endpoint.generation, *addresses, *macs, flags)


class Endpoints:
    """The one writer of the table `endpoints`."""

    def __init__(self, tables: Commits, maps: EndpointMaps) -> None:
        self._tables = tables
        self._maps = maps
        self._writer = tables.writer(ENDPOINTS)
        self._reserves = tables.writer(RESERVES)
        self._by_attachment = {(e.container_id, e.interface): e.id for e in self.all()}
        self._reserved: set[int] = set()  # ids whose devices still wait for their deletion
        self._nameless = {e.id for e in self.all() if e.container_id.startswith(NAMELESS)}
        latest = max(self.all(), key=lambda e: e.generation, default=None)
        self._last_id = latest.id if latest is not None else 0
        known = self._reserves.rows.get("generation")
        self._generation = self._generation_limit = known.below if known is not None else 1

    def all(self) -> list[Endpoint]:
        """Every endpoint."""
        return list(self._writer.rows.values())

    def get(self, number: int) -> Endpoint | None:
        """An endpoint by id."""
        found: Endpoint | None = self._writer.rows.get(number)
        return found

    def of(self, container_id: str, interface: str) -> Endpoint | None:
        """An attachment's endpoint."""
        number = self._by_attachment.get((container_id, interface))
        return None if number is None else self.get(number)

    def nameless(self) -> list[Endpoint]:
        """Recovered ones of which no call has said yet which container they belong to."""
        return [self._writer.rows[number] for number in sorted(self._nameless)]

    def recognise(self, container_id: str, interface: str) -> Endpoint | None:
        """Of the nameless ones that which was made for an attachment, as its name shows; it has its own now."""
        for endpoint in self.nameless():
            if host_name(container_id, interface, endpoint.generation) == endpoint.host_interface:
                found = structs.replace(endpoint, container_id=container_id, interface=interface)
                self.put(found)
                self._nameless.discard(found.id)
                self._by_attachment.pop((endpoint.container_id, endpoint.interface), None)
                return found
        return None

    def restore(self, endpoints: Iterable[Endpoint]) -> None:
        """Rows that were lost, as the kernel's entries have it: those are not touched."""
        with self._tables.commit():
            for endpoint in endpoints:
                self._writer.put(endpoint)
                self._by_attachment[endpoint.container_id, endpoint.interface] = endpoint.id
                self._nameless.add(endpoint.id)
                self._last_id = max(self._last_id, endpoint.id)
                if endpoint.generation >= self._generation:  # what was reserved is lost as well
                    self._generation = self._generation_limit = endpoint.generation + _GAP

    def next(self) -> tuple[int, int]:
        """A free id, the longest unused first, and its generation. Raises CniError when all ids are taken."""
        rows = self._writer.rows
        for step in range(1, ENDPOINTS_MAX):
            candidate = (self._last_id - 1 + step) % (ENDPOINTS_MAX - 1) + 1
            if candidate not in rows and candidate not in self._reserved:
                self._last_id = candidate
                return candidate, self._next_generation()
        raise CniError(Code.TRY_AGAIN, f"all {ENDPOINTS_MAX - 1} endpoint ids of this node are taken")

    def put(self, endpoint: Endpoint) -> None:
        """Add or change an endpoint: on disk and in the kernel when this returns."""
        before = self.get(endpoint.id)
        self._writer.put(endpoint)
        self._by_attachment[endpoint.container_id, endpoint.interface] = endpoint.id
        if before is None or entry_of(before) != entry_of(endpoint):
            self._maps.update(endpoint)

    def put_all(self, endpoints: Iterable[Endpoint]) -> None:
        """Change several in one commit."""
        with self._tables.commit():
            for endpoint in endpoints:
                self.put(endpoint)

    def delete(self, endpoint: Endpoint) -> None:
        """Forget an endpoint; its id stays reserved until `release`."""
        self._reserved.add(endpoint.id)
        self._maps.delete(endpoint)
        self._writer.delete(endpoint.id)
        self._by_attachment.pop((endpoint.container_id, endpoint.interface), None)
        self._nameless.discard(endpoint.id)

    def release(self, numbers: Iterable[int]) -> None:
        """The devices of these ids are gone: the ids may be given out again."""
        self._reserved.difference_update(numbers)

    def release_all(self) -> None:
        """No device waits for its deletion any more."""
        self._reserved.clear()

    def fill_maps(self) -> int:
        """After a start: make the kernel's maps equal to the rows; how many entries were not."""
        return self._maps.reconcile(self.all())

    def complete(self) -> None:
        """Every endpoint that there is, is in the table."""
        self._writer.complete()
        self._reserves.complete()

    def _next_generation(self) -> int:
        if self._generation >= self._generation_limit:
            self._generation_limit = self._generation + _BLOCK
            self._reserves.put(Reserve(name="generation", below=self._generation_limit))
        self._generation += 1
        return self._generation - 1
