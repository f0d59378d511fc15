"""The nodes of the store as peers: names and addresses as Hubble writes them. Pure but for `Nodes.run`."""

from __future__ import annotations

import asyncio
import ipaddress
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from ciliate.model.kinds import CILIUM_NODE
from ciliate.store import Object, ObjectChanges, Store, follow

from ciliate_hubble.api.peer_pb2 import (
    PEER_ADDED,
    PEER_DELETED,
    PEER_UPDATED,
    TLS,
    ChangeNotification,
    ChangeNotificationType,
)
from ciliate_hubble.certificates.names import server_name

DEFAULT_CLUSTER = "default"
PREFERRED = ("InternalIP", "ExternalIP")
"""Types of addresses by which a node is reached, the better first. Routers' (CiliumInternalIP) are the pods' side."""


@dataclass(frozen=True)
class PeerNames:
    """How peers of one cluster are called and reached."""

    cluster: str
    port: int | None  # of the servers; None: the address goes without
    prefer_ipv6: bool = False
    tls: bool = True

    def name(self, node: str) -> str:
        """`<cluster>/<node>`, or the bare node name in the cluster `default`."""
        return node if self.cluster in ("", DEFAULT_CLUSTER) else f"{self.cluster}/{node}"

    def address(self, node: Object) -> str:
        """Where a CiliumNode's server listens; empty if the node has no address yet."""
        entries = (node.get("spec") or {}).get("addresses") or []
        for kind in PREFERRED:
            found = [address for e in entries if e.get("type") == kind and (address := _parsed(e.get("ip")))]
            for version in (6, 4) if self.prefer_ipv6 else (4, 6):
                for address in found:
                    if address.version == version:
                        return self._with_port(address)
        return ""

    def notification(self, node: str, address: str, type_: ChangeNotificationType) -> ChangeNotification:
        """A message of the service."""
        told = ChangeNotification(name=self.name(node), address=address, type=type_)
        if self.tls:
            told.tls.CopyFrom(TLS(server_name=server_name(node, self.cluster)))
        return told

    def _with_port(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
        if self.port is None:
            return str(address)
        return f"[{address}]:{self.port}" if address.version == 6 else f"{address}:{self.port}"


class NodeListener(Protocol):
    """Who is told of changes."""

    def tell(self, changes: list[ChangeNotification]) -> None:
        """Changes in order; must not wait."""


class Nodes:
    """All nodes of the cluster, and who wants to know."""

    def __init__(self, store: Store, names: PeerNames) -> None:
        self._store = store
        self.names = names
        self._addresses: dict[str, str] = {}  # by node
        self.listeners: list[NodeListener] = []
        self._listed = asyncio.Event()

    async def run(self) -> None:
        """Follow the CiliumNode objects, for ever."""
        async with aclosing(follow(self._store, CILIUM_NODE)) as followed:  # type: ignore[type-var]
            async for changes in followed:
                self.apply(changes)

    def apply(self, changes: ObjectChanges) -> None:
        """Take changes of the store over, the first whole, and tell what changes for relays: a label, say, does not."""
        self._listed.set()
        told = [
            self.names.notification(key.name, address, PEER_DELETED)
            for key in changes.deletes
            if (address := self._addresses.pop(key.name, None)) is not None
        ]
        for node in changes.upserts:
            name, address = node["metadata"]["name"], self.names.address(node)
            former = self._addresses.get(name)
            if former != address:
                self._addresses[name] = address
                type_ = PEER_ADDED if former is None else PEER_UPDATED
                told.append(self.names.notification(name, address, type_))
        if told:
            for listener in self.listeners:
                listener.tell(told)

    async def listen(self, listener: NodeListener) -> None:
        """Tell all known nodes at once, as soon as they are known, then every change."""
        await self._listed.wait()
        listener.tell([self.names.notification(n, a, PEER_ADDED) for n, a in sorted(self._addresses.items())])
        self.listeners.append(listener)

    def leave(self, listener: NodeListener) -> None:
        """Tell no more."""
        if listener in self.listeners:
            self.listeners.remove(listener)


def _parsed(text: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(str(text))
    except ValueError:
        return None
