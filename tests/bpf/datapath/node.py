"""A node's maps and programs, with a few pods, for tests: rules are written, packets are sent, outcomes come back."""

from __future__ import annotations

import dataclasses
import ipaddress
import random
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from ciliate.drain import EventRing
from ciliate.maps.map import Map
from ciliate.maps.registry import MapRegistry
from ciliate.maps.spec import MapSpec
from ciliate.model import conntrack, datapath, endpoint, event, ipcache, points, policy, service
from ciliate.model.policy import Direction
from ciliate.model.reasons import DropReason
from ciliate.programs.object import ProgramSet
from numpy.typing import NDArray
from scapy.layers.l2 import Ether
from scapy.packet import Packet

REDIRECT, DROP, PASS = 7, 2, 0
HOST_IFINDEX, NET_IFINDEX = 10, 11
HOST_MAC = "02:00:00:00:00:0a"
ALLOW_ALL, DENY_ALL, FREE = 1, 2, 10
"""Policy ids: everything allowed (rule set 1), nothing (no entries), and the first that tests may fill."""
PLAIN_ALLOW = (0xFFFFFF << 8) | 1
DENY = (0xFFFFFF << 8) | 255
CONNTRACK_ENTRIES = 512
SMALLER = {"conntrack": CONNTRACK_ENTRIES, "conntrack_new": 4096, "events": 1 << 20}
REASONS = {int(reason): reason for reason in DropReason}
MODULES = (conntrack, datapath, endpoint, event, ipcache, points, policy, service)


def packed(address: str) -> bytes:
    """16 bytes of an address; IPv4 as ::ffff:a.b.c.d."""
    parsed = ipaddress.ip_address(address)
    return bytes(10) + b"\xff\xff" + parsed.packed if parsed.version == 4 else parsed.packed


def mac_bytes(mac: str) -> bytes:
    """6 bytes of a MAC in text form."""
    return bytes.fromhex(mac.replace(":", ""))


@dataclass(frozen=True)
class Pod:
    """An endpoint of the test node: its addresses follow from its id."""

    id: int

    @property
    def ipv4(self) -> str:
        return f"10.0.0.{self.id}"

    @property
    def ipv6(self) -> str:
        return f"fd00::{self.id:x}"

    @property
    def mac(self) -> str:
        return f"02:00:00:00:01:{self.id:02x}"

    @property
    def host_mac(self) -> str:
        return f"02:00:00:00:02:{self.id:02x}"

    @property
    def ifindex(self) -> int:
        return endpoint.IFINDEX_BASE + self.id

    @property
    def identity(self) -> int:
        return 1000 + self.id


PODS = [Pod(number) for number in range(1, 6)]
DEVICES = {
    HOST_IFINDEX: ("ciliate_host", HOST_MAC),
    NET_IFINDEX: ("ciliate_net", "02:00:00:00:00:0b"),
    20: ("stranger", "02:00:00:00:00:14"),
    endpoint.IFINDEX_BASE + 99: ("lxcunknown", "02:00:00:00:00:15"),
} | {pod.ifindex: (f"lxc{pod.id}", pod.host_mac) for pod in PODS}


@dataclass(frozen=True)
class Outcome:
    """What became of one packet: where it went (pod id, "host", "stack", or None), with what."""

    to: int | str | None
    frame: Packet
    mark: int
    events: NDArray[Any]
    duration_ns: int

    @property
    def reason(self) -> DropReason | None:
        """Why it was dropped, by its event; None if there is no drop event."""
        drops = self.events[self.events["kind"] == event.EventKind.DROP]
        return REASONS[int(drops[0]["reason"])] if len(drops) else None

    @property
    def event(self) -> Any:
        """The one event of this packet."""
        assert len(self.events) == 1, self.events
        return self.events[0]


class Node:
    """The program set on maps of its own. `reset` before each test: pods 1 to 5, all allowed."""

    def __init__(self, registry: MapRegistry, programs: ProgramSet) -> None:
        self.registry = registry
        self.programs = programs
        self.ring = EventRing(self.map("events"), self.map("events_lost"))
        self.endpoint_stamps = self.map("endpoint_stamps").mmap(writable=True)
        self.peer_stamps = self.map("peer_stamps").mmap(writable=True)
        self.endpoints = self.map("endpoints").mmap(writable=True)
        self.policies = self.map("endpoint_policy").mmap(writable=True)
        self.switches = self.map("switches").mmap(writable=True)
        self.counts = self.map("endpoint_flows").mmap(writable=True)

    def map(self, name: str) -> Map:
        """One of the programs' maps, writable."""
        return self.registry.open(name, writable=True)

    def reset(self) -> None:
        """Empty maps and fresh stamps, then pods 1 to 5 of identity 1000 + id that may do anything."""
        for name in (
            "endpoint_ips", "ipcache", "policy", "conntrack", "conntrack_new", "fragments",
            "services", "backends", "service_reverse", "service_flows", "service_new",
        ):  # fmt: skip
            keys, _ = self.map(name).items()
            self.map(name).delete_batch(keys)
        for counters in (self.endpoint_stamps, self.peer_stamps):
            # what the per-CPU caches still hold from an earlier test must not look valid
            counters[:] = random.getrandbits(31)
        self.endpoint_stamps[0] = 0
        self.endpoints[:] = np.zeros(1, endpoint.ENDPOINT_ENTRY)
        self.policies[:] = np.zeros(1, endpoint.ENDPOINT_POLICY_ENTRY)
        self.switches[0] = 0
        self.counts[:] = np.zeros(1, conntrack.ENDPOINT_FLOWS_ENTRY)
        self.map("point_slots").mmap(writable=True)[:] = 0
        self.rule(ALLOW_ALL, rule_set=1, direction=Direction.EGRESS)
        self.rule(ALLOW_ALL, rule_set=1, direction=Direction.INGRESS)
        self.know("10.9.0.1/32", 1, ipcache.IPCACHE_HOST)
        self.know("fd00:9::1/128", 1, ipcache.IPCACHE_HOST)
        for pod in PODS:
            self.add(pod)
        self.read_events()

    def add(self, pod: Pod, generation: int = 1) -> None:
        """Make an endpoint known, as the CNI server and policy do."""
        self.endpoints[pod.id] = np.array(
            (
                pod.ifindex, generation, list(packed(pod.ipv4)), list(packed(pod.ipv6)),
                list(mac_bytes(pod.mac)), list(mac_bytes(pod.host_mac)), endpoint.ENDPOINT_VALID,
            ),
            endpoint.ENDPOINT_ENTRY,
        )  # fmt: skip
        for address in (pod.ipv4, pod.ipv6):
            self.map("endpoint_ips").update((packed(address),), pod.id)
            self.know(address, pod.identity)
        self.apply(pod)

    def apply(self, pod: Pod, ingress: int = ALLOW_ALL, egress: int = ALLOW_ALL, flags: int = 0) -> None:
        """Give a pod its policies, and bump its counter."""
        self.policies[pod.id] = np.array((pod.identity, ingress, egress, flags), endpoint.ENDPOINT_POLICY_ENTRY)
        self.bump(pod)

    def bump(self, pod: Pod) -> None:
        """A verdict of the pod's own policy has changed."""
        self.endpoint_stamps[pod.id] += np.uint32(1)

    def know(self, prefix: str, identity: int, flags: int = 0) -> None:
        """An ipcache entry, then the bump of its address (of all, if it is shorter than a host's)."""
        network = ipaddress.ip_network(prefix)
        length = network.prefixlen + (96 if network.version == 4 else 0)
        key = (length, packed(str(network.network_address)))
        self.map("ipcache").update(key, (identity, flags, bytes(16)))
        self.bump_peer(str(network.network_address) if length == 128 else None)

    def forget(self, address: str) -> None:
        """Take an address out of the ipcache."""
        self.map("ipcache").delete((128, packed(address)))
        self.bump_peer(address)

    def bump_peer(self, address: str | None) -> None:
        """An address has another identity; None: many have."""
        slots: int | slice = slice(None) if address is None else endpoint.peer_slot(packed(address))
        self.peer_stamps[slots] += np.uint32(1)

    def rule(
        self, policy_id: int, *, direction: Direction, peer: int = 0, protocol: int = 0, port: int | None = None,
        bits: int = 16, deny: bool = False, precedence: int | None = None, rule_set: int = 2, proxy_port: int = 0,
        auth: int = 0, explicit: bool = False,
    ) -> None:  # fmt: skip
        """One entry of the policy map. port None: any."""
        tail = 0 if not protocol else 8 if port is None else 8 + bits
        flags = (policy.POLICY_DENY if deny else 0) | (policy.POLICY_AUTH_EXPLICIT if explicit else 0)
        key = (policy.POLICY_PREFIX + tail, policy_id, peer, direction, protocol, port or 0)
        default = DENY if deny else PLAIN_ALLOW + bool(proxy_port)
        value = (precedence or default, rule_set, proxy_port, flags, auth, tail, bytes(3))
        self.map("policy").update(key, value)

    def unrule(self, policy_id: int, *, direction: Direction, peer: int = 0) -> None:
        """Take an entry for any port out again."""
        self.map("policy").delete((policy.POLICY_PREFIX, policy_id, peer, direction, 0, 0))

    def service(self, address: str, port: int, protocol: int, *backends: tuple[str, int], number: int = 7) -> None:
        """A service with its backends; switches its stage on."""
        entry = (packed(address), port, protocol, 0)
        self.map("services").update(entry, (number, len(backends), 0))
        for slot, (backend, target) in enumerate(backends, 1):
            self.map("backends").update((number, slot), (packed(backend), target, 0))
        self.map("service_reverse").update(number, (packed(address), port, 0))
        self.switches[0] |= np.uint32(datapath.Switch.SERVICES)

    def send(self, pod: Pod, packet: Packet | bytes, repeat: int = 1) -> Outcome:
        """A packet that a pod sends; without an Ethernet header, it gets the pod's."""
        if isinstance(packet, Packet) and not packet.haslayer(Ether):
            packet = Ether(src=pod.mac, dst=pod.host_mac) / packet
        return self.run("from_pod", pod.ifindex, bytes(packet), repeat=repeat)

    def send_from_host(self, packet: Packet | bytes, mark: int = 0) -> Outcome:
        """A packet that the host's stack routes to a pod."""
        if isinstance(packet, Packet) and not packet.haslayer(Ether):
            packet = Ether(src=HOST_MAC, dst=HOST_MAC) / packet
        return self.run("from_host", NET_IFINDEX, bytes(packet), mark)

    def run(self, program: str, ifindex: int, frame: bytes, mark: int = 0, repeat: int = 1) -> Outcome:
        """Run a program on a frame."""
        result = self.programs.program(program).test_run(frame, self.context(ifindex, mark), repeat)
        mark_after = int(np.frombuffer(result.ctx, "<u4", 3)[2]) if len(result.ctx) >= 12 else 0
        to = self._where(result.retval, result.data)
        return Outcome(to, Ether(result.data), mark_after, self.read_events(), result.duration_ns)

    @staticmethod
    def context(ifindex: int, mark: int = 0) -> bytes:
        """A struct __sk_buff of a packet that came in by a device."""
        fields = np.zeros(48, "<u4")
        fields[2], fields[10] = mark, ifindex
        return fields.tobytes()

    def read_events(self) -> NDArray[Any]:
        """All events that are waiting."""
        parts = []
        while len(part := self.ring.read()):
            parts.append(part)
        return np.concatenate(parts) if parts else np.empty(0, event.EVENT)

    def flows(self, name: str = "conntrack") -> list[tuple[Any, Any]]:
        """Keys and entries of a conntrack table."""
        return list(zip(*self.map(name).items(), strict=True))

    def flow(self, name: str = "conntrack") -> Any:
        """The one entry of a conntrack table."""
        flows = self.flows(name)
        assert len(flows) == 1, flows
        return flows[0][1]

    def change_flow(self, name: str = "conntrack", **fields: Any) -> None:
        """Change fields of the one entry of a conntrack table."""
        ((key, entry),) = self.flows(name)
        entry = entry.copy()
        for field, value in fields.items():
            entry[field] = value
        self.map(name).update(key, entry)

    def drops(self) -> dict[DropReason, int]:
        """Packets counted so far under each reason."""
        keys, values = self.map("packets").items()
        sums = values["packets"].sum(axis=1)
        return {reason: int(sums[keys >> 1 == reason].sum()) for reason in DropReason}

    def counted(self, reason: int, direction: Direction) -> int:
        """Packets counted under a reason (0: forwarded)."""
        entry: Any = self.map("packets").lookup(int(reason) << 1 | direction)
        return int(entry["packets"].sum())

    def now(self) -> int:
        """The kernel's jiffies64."""
        return int(self.collect(conntrack.CollectTable.MAIN, [])["now"])

    def collect(self, table: conntrack.CollectTable, keys: Any) -> Any:
        """Run conntrack_collect on keys."""
        slots = self.map("collect_keys").mmap(writable=True)
        slots[: len(keys)] = keys
        context = np.zeros(1, conntrack.COLLECT_CONTEXT)
        context["count"], context["table"] = len(keys), table
        result = self.programs.program("conntrack_collect").test_run(ctx=context.tobytes())
        return np.frombuffer(result.ctx, conntrack.COLLECT_CONTEXT)[0]

    def _where(self, action: int, frame: bytes) -> int | str | None:
        if action != REDIRECT:
            return {DROP: None, PASS: "stack"}[action]
        destination, source = frame[:6], frame[6:12]
        if destination == mac_bytes(HOST_MAC):
            return "host"
        for pod in PODS:
            known = self.endpoints[pod.id]
            if (destination, source) == (bytes(known["mac"]), bytes(known["host_mac"])):
                return pod.id
        raise AssertionError(f"redirected with unknown MACs {destination.hex()} from {source.hex()}")


def specs() -> Iterator[tuple[MapSpec, ModuleType]]:
    """The declared maps of the program set, the large ones made smaller."""
    for module in MODULES:
        for name, spec in vars(module).items():
            if name.endswith("_MAP"):
                yield dataclasses.replace(spec, max_entries=SMALLER.get(spec.name, spec.max_entries)), module
