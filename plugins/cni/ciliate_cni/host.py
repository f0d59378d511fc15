"""The node's own device: ciliate_host, by which the host reaches pods, and behind it ciliate_net, where it is judged.

ciliate_host has the router addresses and the routes of the pod ranges; both ends have one MAC and no ARP, so that what
the stack sends out of one is meant for the other.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from ciliate.model.ipam import NodeRange

from ciliate_cni import links, sysctls
from ciliate_cni import netlink as nl
from ciliate_cni.attach import random_mac

HOST, NET = "ciliate_host", "ciliate_net"
_ADDRESS_GROUPS = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_DEFAULT_MTU = 1500


@dataclass(frozen=True)
class HostPair:
    """Both ends' indexes and their one MAC."""

    host_index: int
    net_index: int
    mac: str


class HostDevice:
    """Keeps the pair, in the worker thread."""

    def __init__(self) -> None:
        self._socket = nl.NetlinkSocket()

    def close(self) -> None:
        """Let go of the socket; the devices stay."""
        self._socket.close()

    def ensure(self) -> HostPair:
        """Make the pair, or take the one there is, and put its settings right. Raises KernelError."""
        host, net = links.get_link(self._socket, HOST), links.get_link(self._socket, NET)
        if host is None or net is None or host.mac != net.mac:
            for half in (host, net):
                if half is not None:
                    self._socket.errors([links.delete_link(half.index, half.name)])
            mac = random_mac()
            self._socket.send([links.create_veth(HOST, 0, mac, self.mtu(), 0, (NET, 0, mac))])
            host, net = links.get_link(self._socket, HOST), links.get_link(self._socket, NET)
        if host is None or net is None:
            raise RuntimeError(f"{HOST} and {NET} were made, but are not there: does somebody else delete them?")
        quiet = links.NO_LINK_LOCAL if (sysctls.ROOT / "ipv6").exists() else b""
        flags = links.UP | links.NOARP
        self._socket.send(
            [links.set_link(link.index, f"raising {link.name}", quiet, flags, flags) for link in (host, net)]
        )
        sysctls.forward()
        for link in (host, net):
            sysctls.trust_routes(link.name)
        return HostPair(host.index, net.index, host.mac)

    def route(self, pair: HostPair, ranges: Iterable[NodeRange]) -> None:
        """Give ciliate_host these ranges' router addresses and routes, and no others."""
        wanted = {r.cidr: r.router for r in ranges}
        routers = set(wanted.values())
        has = {address for index, address in links.list_addresses(self._socket) if index == pair.host_index}
        routes = {r.cidr for r in links.list_routes(self._socket) if r.index == pair.host_index}
        kernel_made = {f"{address}/{ip_address(address).max_prefixlen}" for address in has}
        changes = [links.delete_route(pair.host_index, cidr) for cidr in sorted(routes - set(wanted) - kernel_made)]
        changes += [
            links.delete_address(pair.host_index, a) for a in sorted(has - routers) if not a.startswith("fe80:")
        ]
        changes += [links.add_address(pair.host_index, address) for address in sorted(routers - has)]
        changes += [links.route(pair.host_index, c, router) for c, router in wanted.items() if c not in routes]
        if changes:
            self._socket.send(changes)

    def addresses(self) -> list[str]:
        """The host's own addresses that a pod could mean: not those of loopback or one link."""
        found = {address for _, address in links.list_addresses(self._socket)}
        return sorted(a for a in found if not (ip_address(a).is_loopback or ip_address(a).is_link_local))

    def mtu(self) -> int:
        """The MTU of the device of the default route (of two the smaller), else 1500."""
        uplinks = {r.index for r in links.list_routes(self._socket) if r.cidr in ("0.0.0.0/0", "::/0")}
        return min((link.mtu for link in links.list_links(self._socket) if link.index in uplinks), default=_DEFAULT_MTU)

    def delete(self) -> None:
        """Remove the pair. For uninstalling."""
        link = links.get_link(self._socket, HOST)
        if link is not None:
            self._socket.send([links.delete_link(link.index, HOST)])


async def address_changes() -> AsyncIterator[None]:
    """Yields once, then after every change of any address of this node."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0) as monitor:
        monitor.bind((0, _ADDRESS_GROUPS))
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        changed.set()

        def drain() -> None:
            changed.set()
            try:
                while monitor.recv(1 << 16):
                    pass
            except OSError:  # read all there is, or more than the buffer held: either way, look again
                return

        loop.add_reader(monitor, drain)
        try:
            while True:
                await changed.wait()
                changed.clear()
                yield None
        finally:
            loop.remove_reader(monitor)
