"""This machine's own networks: what pod ranges must not overlap with, and the node's addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ciliate.model.base import IPNetwork

OWN_DEVICES = ("ciliate_", "lxc")
"""Beginnings of the names of devices that Ciliate makes."""
_LOCAL_TABLE = 255
_UNICAST = 1
_GLOBAL_SCOPE = 0
_LINK_LOCAL = ipaddress.ip_network("fe80::/10")


@dataclass(frozen=True)
class HostNetwork:
    """A route, or an address (as a network of one), and the device that it goes to."""

    network: IPNetwork
    device: str
    kind: str  # route, address

    def __str__(self) -> str:
        return f"{self.kind} {self.network}{f' on {self.device}' if self.device else ''}"


def read_host_networks() -> list[HostNetwork]:
    """Routes but default ones, and addresses, of this network namespace, without Ciliate's own. For a thread.

    Addresses of devices with a default route come first.
    """
    from pyroute2 import IPRoute  # 160 modules: not while a starting agent has more urgent work

    with IPRoute() as netlink:
        devices = {link["index"]: str(link.get_attr("IFLA_IFNAME")) for link in netlink.get_links()}
        routes = list(netlink.get_routes())
        addresses = [_address(address, devices) for address in netlink.get_addr()]
    uplinks = {devices.get(route.get_attr("RTA_OIF") or 0) for route in routes if route.get_attr("RTA_DST") is None}
    found = sorted((a for a in addresses if a is not None), key=lambda a: a.device not in uplinks)
    found += [known for route in routes if (known := _route(route, devices)) is not None]
    return [network for network in found if not _is_own(network)]


def _route(route: Any, devices: dict[int, str]) -> HostNetwork | None:
    destination = route.get_attr("RTA_DST")
    if destination is None or route["type"] != _UNICAST or route.get_attr("RTA_TABLE", route["table"]) == _LOCAL_TABLE:
        return None
    network = ipaddress.ip_network(f"{destination}/{route['dst_len']}", strict=False)
    return HostNetwork(network, devices.get(route.get_attr("RTA_OIF") or 0, ""), "route")


def _address(address: Any, devices: dict[int, str]) -> HostNetwork | None:
    if address["scope"] != _GLOBAL_SCOPE:
        return None
    value = address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS")
    return HostNetwork(ipaddress.ip_network(value), devices.get(address["index"], ""), "address")


def _is_own(network: HostNetwork) -> bool:
    if network.network.version == 6 and network.network.subnet_of(_LINK_LOCAL):  # type: ignore[arg-type]
        return True
    return network.device.startswith(OWN_DEVICES)


def node_addresses(networks: Iterable[HostNetwork]) -> list[str]:
    """One address of each family by which other nodes reach this one; the first device that has one."""
    found: dict[int, str] = {}
    for network in networks:
        if network.kind == "address" and network.device != "lo":
            found.setdefault(network.network.version, str(network.network.network_address))
    return [found[family] for family in sorted(found)]


def overlaps(cidr: str, networks: Iterable[HostNetwork], allowed: Sequence[IPNetwork] = ()) -> list[HostNetwork]:
    """What of this machine a pod range overlaps with, but for networks inside `allowed`."""
    wanted = ipaddress.ip_network(cidr)
    return [
        known
        for known in networks
        if known.network.version == wanted.version and known.network.overlaps(wanted) and not is_within(known, allowed)
    ]


def is_within(known: HostNetwork, allowed: Sequence[IPNetwork]) -> bool:
    """Whether one of the allowed networks contains it."""
    network = known.network
    return any(network.version == a.version and network.subnet_of(a) for a in allowed)  # type: ignore[arg-type]
