"""Making a pod's pair of devices, verifying it and taking it away. All of it runs in the worker thread.

A pair is born in the group MAKING and moves to MADE when all of it stands, its pod's end raised last; what a killed
agent leaves in MAKING is known for half-made. Deleting a pair waits 24 ms for the kernel's RCU, so pairs to be deleted
move to a group of DOOMED and go together.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ciliate.model.endpoint import IFINDEX_BASE, Endpoint
from ciliate.programs.attach import attach_clsact, clsact_messages, list_clsact
from ciliate.programs.program import Program

from ciliate_cni import links, namespaces
from ciliate_cni import netlink as nl
from ciliate_cni.errors import CniError, Code
from ciliate_cni.result import GATEWAY4, GATEWAY6

MADE, MAKING = 0xC1A7E0, 0xC1A7E1
DOOMED = range(0xC1A800, 0xC1A840)
"""Interface groups of pods' host ends; doomed ones in several, so that one deletion never holds rtnl for long."""
PREFIX = "lxc"
POD_IFINDEX_BASE = 0x20000
"""The pod's end has another index than the host's end: the kernel takes equal ones for a device without a peer."""


def host_index(endpoint: int) -> int:
    """The interface index of an endpoint's host end."""
    return IFINDEX_BASE + endpoint


def host_name(container_id: str, interface: str, generation: int) -> str:
    """The name of a host end: of each attachment and each time that it is made, another."""
    digest = hashlib.blake2s(f"{container_id}/{interface}/{generation}".encode(), digest_size=6)
    return PREFIX + digest.hexdigest()


def random_mac() -> str:
    """A locally administered unicast address."""
    octets = bytearray(secrets.token_bytes(6))
    octets[0] = octets[0] & 0xFC | 0x02
    return octets.hex(":")


@dataclass(frozen=True)
class Damage:
    """What is wrong with an endpoint's devices; `lost`: nothing is left to be repaired."""

    endpoint: int
    what: str
    lost: bool


class Devices:
    """Pods' devices in this node's network namespace. For one thread: its netlink socket has one conversation."""

    def __init__(self) -> None:
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._host = nl.NetlinkSocket()
        self._no_link_local = links.NO_LINK_LOCAL if Path("/proc/sys/net/ipv6").exists() else b""

    def close(self) -> None:
        """Let go of the namespace and the socket."""
        self._host.close()
        os.close(self._home)

    def attach(self, endpoint: Endpoint, netns: int, program: Program) -> None:
        """Make the pair, complete or not at all. Raises CniError that names the step that failed."""
        try:
            self._make_host_end(endpoint, netns, program)
            self._make_pod_end(endpoint, netns)
            self._host.send([links.set_group(endpoint.host_interface, MADE)])
        except nl.NetlinkError as error:
            self._undo(endpoint)
            raise _refusal(endpoint, error) from error
        except BaseException:
            self._undo(endpoint)
            raise

    def doom(self, host_interface: str, batch: int = 0) -> None:
        """Mark a pair for deletion with a batch; one that is gone with its namespace is fine."""
        _ignoring_absence(self._host.errors([links.set_group(host_interface, DOOMED[batch])]))

    def reap(self, batch: int) -> None:
        """Delete the pairs of a batch in one call."""
        _ignoring_absence(self._host.errors([links.delete_group(DOOMED[batch])]))

    def reap_all(self) -> None:
        """Delete all doomed pairs."""
        groups = {link.group for link in links.list_links(self._host)} & set(DOOMED)
        _ignoring_absence(self._host.errors([links.delete_group(group) for group in groups]) if groups else [])

    def made(self) -> dict[int, links.Link]:
        """Pairs that stand, whole and not to be deleted, by endpoint id."""
        found = [link for link in links.list_links(self._host) if link.group == MADE]
        return {link.index - IFINDEX_BASE: link for link in found}

    def purge_orphans(self, known: Iterable[int]) -> list[str]:
        """Delete pairs that no endpoint owns, or that were never finished; their names. For the start."""
        kept = {host_index(endpoint) for endpoint in known}
        doomed = [
            link
            for link in links.list_links(self._host)
            if link.group == MAKING or link.group in DOOMED or (link.group == MADE and link.index not in kept)
        ]
        for link in doomed:
            self.doom(link.name)
        if doomed:
            self.reap_all()
        return [link.name for link in doomed]

    def replace(self, endpoints: Iterable[Endpoint], program: Program) -> int:
        """Have every endpoint's host end that runs another program run this one, from one packet to the next."""
        present = {link.index for link in links.list_links(self._host)}
        indexes = [index for one in endpoints if (index := host_index(one.id)) in present]
        others = [index for index in indexes if _attached(index) not in (program.info().id, None)]
        for index in others:
            attach_clsact(index, program)
        return len(others)

    def survey(self, endpoints: Iterable[Endpoint], program: Program | None) -> list[Damage]:
        """Look at every endpoint's host end; put right what can be without touching a packet, report what can't.

        program: what each must run; None while they run an older one.
        """
        present = {link.index: link for link in links.list_links(self._host)}
        damages = []
        for endpoint in endpoints:
            link = present.get(host_index(endpoint.id))
            if link is None or link.name != endpoint.host_interface or link.group != MADE:
                damages.append(Damage(endpoint.id, f"{endpoint.host_interface} is gone", lost=True))
                continue
            wrong = self._mend(link, program)
            if wrong:
                damages.append(Damage(endpoint.id, "; ".join(wrong), lost=False))
        return damages

    def inspect(self, endpoint: Endpoint, netns: int, program: Program) -> list[str]:
        """What of an endpoint's devices is not as ADD made it, seen from both ends."""
        host = links.get_link(self._host, endpoint.host_interface)
        wrong = []
        if host is None or host.index != host_index(endpoint.id):
            wrong.append(f"the host's end {endpoint.host_interface} is gone")
        elif not host.flags & links.UP:
            wrong.append(f"the host's end {endpoint.host_interface} is down")
        elif _attached(host.index) != program.info().id:
            wrong.append(f"the host's end {endpoint.host_interface} has lost its program")
        with namespaces.inside(netns, self._home), nl.NetlinkSocket() as pod:
            return wrong + _inspect_pod_end(pod, endpoint)

    def _mend(self, link: links.Link, program: Program | None) -> list[str]:
        wrong = []
        if program is not None and _attached(link.index) != program.info().id:
            wrong.append("it had lost its program")
            attach_clsact(link.index, program)
        if not link.flags & links.UP:
            wrong.append(f"{link.name} was down")
            self._host.send([links.link_up(link.index, link.name, self._no_link_local)])
        return wrong

    def _make_host_end(self, endpoint: Endpoint, netns: int, program: Program) -> None:
        index, name = host_index(endpoint.id), endpoint.host_interface
        peer = (endpoint.interface, POD_IFINDEX_BASE + endpoint.id, endpoint.mac)
        batch = [
            links.create_veth(name, index, endpoint.host_mac, endpoint.mtu, MAKING, peer, netns),
            *_filter_messages(index, name, program),
            links.link_up(index, name, self._no_link_local),
        ]
        try:
            self._host.send(batch)
        except nl.NetlinkError as error:
            if error.message != 0 or error.errno != errno.EEXIST:
                raise
            self.reap_all()  # an earlier attachment's pair may still wait for its deletion, in the same namespace
            self._host.send(batch)

    def _make_pod_end(self, endpoint: Endpoint, netns: int) -> None:
        messages = _pod_messages(endpoint, self._no_link_local)
        with namespaces.inside(netns, self._home), nl.NetlinkSocket() as pod:
            errors = pod.errors(messages)
            if any(error.errno == errno.EACCES for error in errors) and _enable_ipv6(endpoint.interface):
                errors = pod.errors(messages)
            if errors:
                raise errors[0]

    def _undo(self, endpoint: Endpoint) -> None:
        link = links.get_link(self._host, endpoint.host_interface)
        if link is not None and link.group == MAKING:
            self.doom(link.name)


def _pod_messages(endpoint: Endpoint, no_link_local: bytes) -> list[nl.Message]:
    """All that makes the pod's end, from address to route. (No router's word changes it: none passes the programs.)"""
    index, name = POD_IFINDEX_BASE + endpoint.id, endpoint.interface
    messages = [links.link_up(1, "lo")]
    if no_link_local:
        messages.append(links.set_link(index, f"preparing {name}", no_link_local))
    gateways = []
    for address, gateway in ((endpoint.ipv4, GATEWAY4), (endpoint.ipv6, GATEWAY6)):
        if address is not None:
            messages.append(links.add_address(index, address))
            gateways.append(gateway)
    messages.append(links.link_up(index, name))
    messages += [links.add_neighbour(index, gateway, endpoint.host_mac) for gateway in gateways]
    messages += [links.default_route(index, gateway) for gateway in gateways]
    return messages


def _filter_messages(index: int, name: str, program: Program) -> list[nl.Message]:
    """The core's packed messages that attach a program, in our batch: acknowledged only if they fail."""
    raw = clsact_messages(index, program)
    return [nl.unpacked(f"attaching {program.name} to {name}", message) for message in raw]


def _attached(index: int) -> int | None:
    """The id of the program at an interface's ingress; the calling thread is in the interface's namespace."""
    return next((found.program_id for found in list_clsact(index)), None)


def _inspect_pod_end(pod: nl.NetlinkSocket, endpoint: Endpoint) -> list[str]:
    link = links.get_link(pod, endpoint.interface)
    if link is None:
        return [f"the container has no interface {endpoint.interface}"]
    wrong = []
    if link.mac != endpoint.mac:
        wrong.append(f"{endpoint.interface} has MAC {link.mac} instead of {endpoint.mac}")
    if not link.flags & links.UP:
        wrong.append(f"{endpoint.interface} is down")
    addresses = {address for index, address in links.list_addresses(pod) if index == link.index}
    gateways = {r.gateway for r in links.list_routes(pod) if r.index == link.index and r.cidr in ("0.0.0.0/0", "::/0")}
    for address, gateway in ((endpoint.ipv4, GATEWAY4), (endpoint.ipv6, GATEWAY6)):
        if address is not None and address not in addresses:
            wrong.append(f"{endpoint.interface} lacks the address {address}")
        if address is not None and gateway not in gateways:
            wrong.append(f"{endpoint.interface} lacks the default route by {gateway}")
    return wrong


def _enable_ipv6(interface: str) -> bool:
    """Undo a runtime's disable_ipv6 on the pod's interface (the thread is in the pod's namespace)."""
    switch = Path(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6")
    try:
        if switch.read_text().strip() != "1":
            return False
        switch.write_text("0")
    except OSError:
        return False
    return True


def _ignoring_absence(errors: list[nl.NetlinkError]) -> None:
    for error in errors:
        if error.errno != errno.ENODEV:
            raise error


def _refusal(endpoint: Endpoint, error: nl.NetlinkError) -> CniError:
    """A kernel's refusal in the words of CNI."""
    if error.errno == errno.EEXIST and error.message == 0 and "making the pair" in error.what:
        return CniError(
            Code.KERNEL,
            f"the container has an interface {endpoint.interface} already",
            f"{error}; another CNI plugin, or an attachment that was never deleted, made it",
        )
    more = f", and {error.others} more refusals" if error.others else ""
    return CniError(Code.KERNEL, f"{endpoint.host_interface}: {error.what}: {error.strerror}", f"{error}{more}")
