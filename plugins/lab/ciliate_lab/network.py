"""The lab's own network: one bridge in `outside`, an uplink from each node, addresses that stand for the world.

It is in namespaces of its own, so two labs may use the same addresses and no packet leaves the machine.
"""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Iterable
from pathlib import Path

from ciliate_lab import namespaces
from ciliate_lab.place import LabError, LabNode, LabPlace

UNDERLAY = (ipaddress.ip_network("172.30.0.0/24"), ipaddress.ip_network("fd0c:111a:7e::/64"))
WORLD = ("198.51.100.1", "198.51.100.2", "203.0.113.1", "2001:db8:51::1", "2001:db8:51::2", "2001:db8:113::1")
"""Addresses of `outside` beyond the underlay: the world, for CIDR and entity rules."""
GATEWAYS = tuple(str(network[1]) for network in UNDERLAY)
MTU = 1500
MOST_NODES = 200

_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
}


def node_addresses(number: int) -> tuple[str, str]:
    """The underlay addresses of a node, IPv4 and IPv6."""
    return str(UNDERLAY[0][10 + number]), str(UNDERLAY[1][10 + number])


def build_outside(lab: LabPlace) -> None:
    """Make the namespace `outside` with its bridge and its addresses."""
    namespaces.create(lab.outside)
    _set_sysctls(lab.outside)
    lines = [f"link add br0 mtu {MTU} type bridge forward_delay 0", "link set br0 up"]
    for gateway, network in zip(GATEWAYS, UNDERLAY, strict=True):
        lines.append(_address(f"{gateway}/{network.prefixlen}", "br0"))
    lines += [_address(address, "lo") for address in WORLD]
    _batch(lab.outside, lines)


def build_node(node: LabNode) -> None:
    """Make a node's namespace, its uplink `eth0` and its default routes."""
    namespaces.create(node.namespace)
    _set_sysctls(node.namespace)
    uplink = f"name eth0 netns {node.namespace}"
    _batch(
        node.lab.outside,
        [
            f"link add {node.name} mtu {MTU} type veth peer {uplink} mtu {MTU}",
            f"link set {node.name} master br0",
            f"link set {node.name} up",
        ],
    )
    lines = ["link set eth0 up"]
    for address, network in zip(node_addresses(node.number), UNDERLAY, strict=True):
        lines.append(_address(f"{address}/{network.prefixlen}", "eth0"))
    lines += [f"route add default via {gateway}" for gateway in GATEWAYS]
    _batch(node.namespace, lines)


def route_ranges(ranges: Iterable[tuple[str, str]]) -> None:
    """Point (pod range, node address) pairs at the nodes, in the namespace that the caller is in. Raises LabError."""
    _batch("", [f"route replace {cidr} via {via}" for cidr, via in ranges])


def _address(address: str, device: str) -> str:
    return f"addr add {address} dev {device}" + (" nodad" if ":" in address else "")


def _batch(namespace: str, lines: list[str]) -> None:
    """`ip -n`, which unlike `ip netns exec` mounts nothing. Raises LabError."""
    done = subprocess.run(
        ["ip", *(("-n", namespace) if namespace else ()), "-batch", "-"],
        input="\n".join(lines) + "\n",
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(f"network of {namespace or 'this namespace'}: {done.stderr.strip()}")


def _set_sysctls(namespace: str) -> None:
    def write() -> None:
        for name, value in _SYSCTLS.items():
            Path("/proc/sys", *name.split(".")).write_text(value)

    namespaces.inside(namespace, write)
