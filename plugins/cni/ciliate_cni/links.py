"""Packed messages on links, addresses, neighbours and routes, and what the kernel tells of them."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network

from ciliate_cni import netlink as nl
from ciliate_cni.netlink import Message, attribute, attributes, number, text

UP, NOARP, LOWER_UP = 0x1, 0x80, 0x10000
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, lengths of dst and src, tos, table, protocol, scope, type, flags
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type

_MAC, _NAME, _MTU, _AF_SPEC, _NET_NS_FD, _GROUP, _LINKINFO = 1, 3, 4, 26, 28, 27, 18
_TX_QUEUES, _RX_QUEUES = 31, 32
_KIND, _DATA, _VETH_PEER = 1, 2, 1
_NODAD, _PERMANENT = 0x02, 0x80
_MAIN, _STATIC, _UNIVERSE, _SCOPE_LINK, _NOWHERE, _UNICAST, _ONLINK = 254, 4, 0, 253, 255, 1, 4

NO_LINK_LOCAL = attribute(_AF_SPEC, attribute(socket.AF_INET6, attribute(8, b"\x01")))
"""IFLA_INET6_ADDR_GEN_MODE none: the kernel makes no link-local address, so it solicits and reports nothing."""


@dataclass(frozen=True)
class Link:
    """An interface as the kernel has it."""

    index: int
    name: str
    mac: str
    mtu: int
    group: int
    flags: int

    @property
    def carrier(self) -> bool:
        """Of a veth: both ends are up."""
        return bool(self.flags & LOWER_UP)


def mac_bytes(mac: str) -> bytes:
    """The 6 bytes of aa:bb:cc:dd:ee:ff."""
    return bytes.fromhex(mac.replace(":", ""))


@lru_cache(maxsize=64)
def _family(address: str) -> tuple[int, bytes]:
    parsed = ip_address(address)
    return (socket.AF_INET if parsed.version == 4 else socket.AF_INET6), parsed.packed


def create_veth(
    name: str, index: int, mac: str, mtu: int, group: int, peer: tuple[str, int, str], netns: int | None = None
) -> Message:
    """Make a pair, both ends down; peer: name, index (0: any), MAC; in the namespace of a descriptor, or this one.

    One queue each way: a veth's packets wait in none (nothing here runs XDP on one), and without being told so the
    kernel makes as many as there are CPUs, with 90 µs for each: 250 µs instead of 430 on two.
    """
    peer_name, peer_index, peer_mac = peer
    one_queue = number(_TX_QUEUES, 1) + number(_RX_QUEUES, 1)
    inside = _LINK.pack(0, 0, peer_index, 0, 0) + text(_NAME, peer_name) + number(_MTU, mtu)
    inside += attribute(_MAC, mac_bytes(peer_mac)) + one_queue
    if netns is not None:
        inside += number(_NET_NS_FD, netns)
    info = text(_KIND, "veth") + attribute(_DATA, attribute(_VETH_PEER, inside))
    body = _LINK.pack(0, 0, index, 0, 0) + text(_NAME, name) + attribute(_MAC, mac_bytes(mac)) + number(_MTU, mtu)
    body += number(_GROUP, group) + one_queue + attribute(_LINKINFO, info)
    return Message(f"making the pair {name} and {peer_name}", nl.NEWLINK, nl.CREATE | nl.EXCLUSIVE, body)


def set_link(index: int, what: str, more: bytes = b"", flags: int = 0, change: int = 0) -> Message:
    """Change a link: flags under a mask, and attributes."""
    return Message(what, nl.SETLINK, 0, _LINK.pack(0, 0, index, flags, change) + more)


def link_up(index: int, name: str, more: bytes = b"") -> Message:
    """Raise a link."""
    return set_link(index, f"raising {name}", more, UP, UP)


def set_group(name: str, group: int) -> Message:
    """Move a link into a group, which can be deleted in one call."""
    return set_link(0, f"moving {name} to group {group:#x}", text(_NAME, name) + number(_GROUP, group))


def delete_link(index: int, name: str) -> Message:
    """Delete a link (of a veth pair: both ends); waits for the kernel's RCU, 10 to 25 ms."""
    return Message(f"deleting {name}", nl.DELLINK, 0, _LINK.pack(0, 0, index, 0, 0))


def delete_group(group: int) -> Message:
    """Delete all links of a group; ENODEV if there are none."""
    return Message(
        f"deleting the interfaces of group {group:#x}", nl.DELLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + number(_GROUP, group)
    )


def add_address(index: int, address: str, bits: int | None = None) -> Message:
    """Give an interface an address of a host (or of `bits`), usable at once. One that it has already is fine."""
    family, packed = _family(address)
    length = 8 * len(packed) if bits is None else bits
    flags = _NODAD if family == socket.AF_INET6 else 0
    body = _ADDRESS.pack(family, length, flags, _UNIVERSE, index) + attribute(2, packed) + attribute(1, packed)
    return Message(f"adding the address {address}/{length}", nl.NEWADDR, nl.CREATE | nl.REPLACE, body)


def add_neighbour(index: int, address: str, mac: str) -> Message:
    """A permanent neighbour."""
    family, packed = _family(address)
    body = _NEIGHBOUR.pack(family, index, _PERMANENT, 0, 0) + attribute(1, packed) + attribute(2, mac_bytes(mac))
    return Message(f"adding the neighbour {address}", nl.NEWNEIGH, nl.CREATE | nl.REPLACE, body)


def default_route(index: int, gateway: str) -> Message:
    """A default route by a gateway on the link, whatever the interface's own addresses are."""
    family, packed = _family(gateway)
    body = _ROUTE.pack(family, 0, 0, 0, _MAIN, _STATIC, _UNIVERSE, _UNICAST, _ONLINK)
    body += number(4, index) + attribute(5, packed)
    return Message(f"adding the default route by {gateway}", nl.NEWROUTE, nl.CREATE | nl.EXCLUSIVE, body)


def route(index: int, cidr: str, source: str) -> Message:
    """A route of a prefix out of an interface, from one of its addresses; an equal one is replaced."""
    network = ip_network(cidr)
    family, packed = _family(str(network.network_address))
    scope = _SCOPE_LINK if family == socket.AF_INET else _UNIVERSE
    body = _ROUTE.pack(family, network.prefixlen, 0, 0, _MAIN, _STATIC, scope, _UNICAST, 0)
    body += attribute(1, packed) + number(4, index) + attribute(7, _family(source)[1])
    return Message(f"adding the route to {cidr}", nl.NEWROUTE, nl.CREATE | nl.REPLACE, body)


def delete_address(index: int, address: str) -> Message:
    """Take an address of a host away from an interface."""
    family, packed = _family(address)
    body = _ADDRESS.pack(family, 8 * len(packed), 0, 0, index) + attribute(2, packed)
    return Message(f"removing the address {address}", nl.DELADDR, 0, body)


def delete_route(index: int, cidr: str) -> Message:
    """Remove a route of a prefix out of an interface."""
    network = ip_network(cidr)
    family, packed = _family(str(network.network_address))
    body = _ROUTE.pack(family, network.prefixlen, 0, 0, _MAIN, 0, _NOWHERE, 0, 0)
    return Message(f"removing the route to {cidr}", nl.DELROUTE, 0, body + attribute(1, packed) + number(4, index))


def list_links(socket_: nl.NetlinkSocket) -> list[Link]:
    """All links of the socket's namespace."""
    return [
        _parse_link(body)
        for body in socket_.ask(Message("listing links", nl.GETLINK, nl.DUMP, _LINK.pack(0, 0, 0, 0, 0)))
    ]


def get_link(socket_: nl.NetlinkSocket, name: str) -> Link | None:
    """A link by name, or None."""
    question = Message(f"looking up {name}", nl.GETLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + text(_NAME, name))
    try:
        answers = socket_.ask(question)
    except nl.NetlinkError:
        return None
    return _parse_link(answers[0]) if answers else None


def list_addresses(socket_: nl.NetlinkSocket) -> list[tuple[int, str]]:
    """All addresses of the socket's namespace, as (interface index, address)."""
    found = []
    for body in socket_.ask(Message("listing addresses", nl.GETADDR, nl.DUMP, _ADDRESS.pack(0, 0, 0, 0, 0))):
        values = dict(attributes(body, _ADDRESS.size))
        packed = values.get(2, values.get(1))
        if packed is not None:
            found.append((_ADDRESS.unpack_from(body)[4], str(ip_address(packed))))
    return found


@dataclass(frozen=True)
class Route:
    """A route of the main table: out of which interface, to where, by which gateway (empty: none)."""

    index: int
    cidr: str
    gateway: str


def list_routes(socket_: nl.NetlinkSocket) -> list[Route]:
    """The unicast routes of the main table."""
    found = []
    for body in socket_.ask(Message("listing routes", nl.GETROUTE, nl.DUMP, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))):
        family, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
        values = dict(attributes(body, _ROUTE.size))
        if table != _MAIN or kind != _UNICAST or 4 not in values:
            continue
        packed = values.get(1, bytes(4 if family == socket.AF_INET else 16))
        gateway = str(ip_address(values[5])) if 5 in values else ""
        index = struct.unpack("=I", values[4])[0]
        found.append(Route(index, str(ip_network((packed, length), strict=False)), gateway))
    return found


def _parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    values = dict(attributes(body, _LINK.size))
    numbers = {kind: struct.unpack("=I", values[kind])[0] for kind in (_MTU, _GROUP) if kind in values}
    name = values.get(_NAME, b"").rstrip(b"\0").decode(errors="replace")
    return Link(index, name, values.get(_MAC, b"").hex(":"), numbers.get(_MTU, 0), numbers.get(_GROUP, 0), flags)
