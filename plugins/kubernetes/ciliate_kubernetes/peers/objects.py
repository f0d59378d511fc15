"""CiliumEndpoints, CiliumNodes and EndpointSlices, read. What is malformed in one is left out and named. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ciliate.model.identity import CLUSTER_SCOPE, Reserved
from ciliate.model.ipcache import IpcacheClaim
from ciliate.store import Object

Complain = Callable[[str], None]
"""Is told what is wrong, with its path."""
_OF_NODES = {"InternalIP", "ExternalIP", "CiliumInternalIP"}


@dataclass(frozen=True)
class Node:
    """A node, as its CiliumNode says."""

    internal: tuple[str, ...]  # by which other nodes reach it
    others: tuple[str, ...]  # what else is the node itself: of its routers, and from outside
    ranges: tuple[str, ...]
    special: tuple[tuple[str, int], ...] = ()  # address and reserved identity of its health endpoint and Ingress

    @property
    def addresses(self) -> frozenset[str]:
        """All that is the node itself."""
        return frozenset((*self.internal, *self.others))

    def underlay(self, version: int) -> str:
        """Where to send what it has to get: an address of the same family, if it has one."""
        same = [address for address in self.internal if ipaddress.ip_address(address).version == version]
        return next(iter((*same, *self.internal)), "")


def read_node(obj: Object, complain: Complain) -> Node:
    """A CiliumNode."""
    spec = _map(obj.get("spec"), "spec", complain)
    internal: list[str] = []
    others: list[str] = []
    for number, entry in enumerate(_list(spec.get("addresses"), "spec.addresses", complain)):
        path = f"spec.addresses[{number}]"
        entry = _map(entry, path, complain)
        if entry.get("type") in _OF_NODES and (address := _address(entry.get("ip"), f"{path}.ip", complain)):
            (internal if entry["type"] == "InternalIP" else others).append(address)
    ranges = []
    ipam = _map(spec.get("ipam"), "spec.ipam", complain)
    for number, cidr in enumerate(_list(ipam.get("podCIDRs"), "spec.ipam.podCIDRs", complain)):
        if network := _network(cidr, f"spec.ipam.podCIDRs[{number}]", complain):
            ranges.append(network)
    special = [
        (address, int(identity))
        for part, identity in (("health", Reserved.HEALTH), ("ingress", Reserved.INGRESS))
        for family, value in _map(spec.get(part), f"spec.{part}", complain).items()
        if value and (address := _address(value, f"spec.{part}.{family}", complain))
    ]
    return Node(tuple(internal), tuple(others), tuple(ranges), tuple(special))


def node_claims(node: Node) -> list[IpcacheClaim]:
    """What a node of the cluster says of its own addresses."""
    known = [(address, int(Reserved.REMOTE_NODE)) for address in (*node.internal, *node.others)]
    return [
        IpcacheClaim(prefix=_prefix(address), identity=identity, node=node.underlay(_version(address)))
        for address, identity in (*known, *node.special)
    ]


def range_claims(node: Node) -> list[IpcacheClaim]:
    """What a node has: an address in there whose pod is not known is nobody's yet."""
    return [
        IpcacheClaim(prefix=cidr, identity=Reserved.UNKNOWN, node=node.underlay(_version(cidr)), unresolved=True)
        for cidr in node.ranges
    ]


def endpoint_claims(obj: Object, complain: Complain) -> list[IpcacheClaim]:
    """What a CiliumEndpoint says of its pod's addresses; nothing until it has an identity."""
    status = _map(obj.get("status"), "status", complain)
    identity = _map(status.get("identity"), "status.identity", complain).get("id")
    networking = _map(status.get("networking"), "status.networking", complain)
    if identity is None or not networking:
        return []
    if not isinstance(identity, int) or (identity not in CLUSTER_SCOPE and identity not in set(Reserved)):
        complain(f"status.identity.id: {identity!r} is no identity of the cluster")
        return []
    node = networking.get("node") or ""
    if node and not (node := _address(node, "status.networking.node", complain)):
        return []
    path = "status.networking.addressing"
    claims = []
    for number, pair in enumerate(_list(networking.get("addressing"), path, complain)):
        for family, value in _map(pair, f"{path}[{number}]", complain).items():
            if value and (address := _address(value, f"{path}[{number}].{family}", complain)):
                claims.append(IpcacheClaim(prefix=_prefix(address), identity=identity, node=node))
    return claims


def slice_addresses(obj: Object, complain: Complain) -> list[str]:
    """The addresses in an EndpointSlice."""
    found: list[str] = []
    for number, endpoint in enumerate(_list(obj.get("endpoints"), "endpoints", complain)):
        path = f"endpoints[{number}].addresses"
        values = _list(_map(endpoint, path, complain).get("addresses"), path, complain)
        found += [address for value in values if (address := _address(value, path, complain))]
    return found


def api_server_claim(address: str, node: Node) -> IpcacheClaim:
    """The API server's address on another node."""
    prefix = _prefix(address)
    return IpcacheClaim(prefix=prefix, identity=Reserved.KUBE_APISERVER, node=node.underlay(_version(address)))


def _version(text: str) -> int:
    return 6 if ":" in text else 4


def _prefix(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def _map(value: Any, path: str, complain: Complain) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        complain(f"{path}: {value!r} is no map")
    return value if isinstance(value, dict) else {}


def _list(value: Any, path: str, complain: Complain) -> Iterator[Any]:
    if value is not None and not isinstance(value, list):
        complain(f"{path}: {value!r} is no list")
    return iter(value if isinstance(value, list) else ())


def _address(value: Any, path: str, complain: Complain) -> str:
    """An address in its canonical form, empty if it is none."""
    try:
        return str(ipaddress.ip_address(str(value)))
    except ValueError:
        complain(f"{path}: {value!r} is no address")
        return ""


def _network(value: Any, path: str, complain: Complain) -> str:
    try:
        return str(ipaddress.ip_network(str(value)))
    except ValueError:
        complain(f"{path}: {value!r} is no CIDR")
        return ""
