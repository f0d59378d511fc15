"""What a node's hubble knows, without a node: names, rules, and records as the data path writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from ciliate.model.base import pack_address
from ciliate.model.endpoint import IFINDEX_BASE, Endpoint, EndpointPolicy
from ciliate.model.event import EVENT, EventKind, EventVerdict, Point, SourceFile
from ciliate.model.identity import Identity
from ciliate.model.l7 import DnsRecord, HttpHeader, HttpRecord, L7Record, L7Type, L7Verdict
from ciliate.model.policy import Rule, RuleSet
from ciliate.model.reasons import DropReason
from ciliate_hubble.api import flow_pb2, observer_pb2
from ciliate_hubble.columns import Flows
from ciliate_hubble.config import HubbleConfig
from ciliate_hubble.encoding.flows import FlowEncoder
from ciliate_hubble.encoding.mask import EVERYTHING, Mask
from ciliate_hubble.ends import Workload
from ciliate_hubble.ingest.conversion import CHUNK, Conversion
from ciliate_hubble.ingest.ingest import Ingest
from ciliate_hubble.ingest.join import EndJoin
from ciliate_hubble.ingest.requests import RequestConversion
from ciliate_hubble.interfaces import Interfaces
from ciliate_hubble.losses import Losses
from ciliate_hubble.names import Names, PodName
from ciliate_hubble.redaction import Redaction
from ciliate_hubble.ring import Ring
from ciliate_hubble.tables import FlowTables
from numpy.typing import NDArray

Records = NDArray[Any]
SPARE = 2000
"""Of the ring: a small one, so that tests can overtake readers quickly."""
CLOCK = 1_700_000_000_000_000_000
"""Wall time less CLOCK_MONOTONIC."""

ALLOW_ALL, DENY_INGRESS, DENY_EGRESS, WEB, WEB_DEFAULT, BLOCK = 1, 2, 3, 20, 21, 22
"""Rule sets of the node."""


def rule(name: str, direction: str, index: int = 0, kind: str = "CiliumNetworkPolicy") -> Rule:
    namespace = "default" if kind else ""
    return Rule(
        kind=kind, namespace=namespace, name=name, uid=f"uid-{name}" if kind else "", generation=3,
        direction=direction, index=index,
    )  # fmt: skip


class Node:
    """Two local pods (ids 1 and 2), one pod of another node, the world, a CIDR."""

    def __init__(self, config: HubbleConfig | None = None, capacity: int = 4095) -> None:
        config = config or HubbleConfig(event_buffer_capacity=capacity)
        self.config = config
        self.tables = FlowTables("node1", interfaces=Interfaces(lambda index: f"device{index}"))
        self.names = Names("default", lambda dependency: self.join.forget(dependency))
        self.join = EndJoin(self.tables.ends, self.names.resolve)
        self.conversion = Conversion(self.tables.ends, self.names, self.tables.rules, self.join)
        self.requests = RequestConversion(self.tables.ends, self.join, self.tables.l7, Redaction(config))
        self.ring = Ring(config.event_buffer_capacity, SPARE)
        self.losses = Losses(config.lost_event_send_interval, lambda: self.ring.seen)
        self.ingest = Ingest(self.conversion, self.requests, self.ring, self.losses, config)
        self._learn()

    def _learn(self) -> None:
        labels = {
            100: ("k8s:app=web", "k8s:tier=front"),
            256: ("k8s:app=web", "k8s:env=prod", "k8s:io.kubernetes.pod.namespace=default"),
            257: ("k8s:app=client", "k8s:io.kubernetes.pod.namespace=shop"),
            300: ("container:app=far", "k8s:io.cilium.k8s.policy.cluster=east", "k8s:io.kubernetes.pod.namespace=shop"),
            1: ("reserved:host",),
            2: ("reserved:world",),
            0x1000001: ("cidr:192.0.2.0/24", "reserved:world"),
        }
        for number, found in labels.items():
            self.names.put_identity(Identity(id=number, labels=found))
        for number, namespace, pod, identity in ((1, "default", "web-1", 256), (2, "shop", "client", 257)):
            self.names.put_endpoint(
                Endpoint(
                    id=number, generation=1, container_id=pod, interface="eth0", netns="", namespace=namespace, pod=pod,
                    host_interface=f"lxc{number}", ipv4=f"10.0.0.{number}", ipv6=f"fd00::{number}",
                )
            )  # fmt: skip
            self.names.put_policy(
                EndpointPolicy(
                    id=number, generation=1, identity=identity, ingress_policy=1, egress_policy=1, revision=1,
                    ingress_default=WEB_DEFAULT if number == 1 else 0,
                )
            )  # fmt: skip
        self.names.put_pod(PodName(("default", "web-1")), (), (Workload("Deployment", "web"),))
        far = [pack_address("10.0.1.9"), pack_address("fd00:1::9")]
        self.names.put_pod(PodName(("shop", "far-0")), far, (Workload("StatefulSet", "far"),))
        self.names.prefixes.put("0.0.0.0/0", 2)
        self.names.prefixes.put("192.0.2.0/24", 0x1000001)
        for number, rules in {
            ALLOW_ALL: (rule("allow-all", "", kind=""),),
            DENY_INGRESS: (rule("default-deny", "ingress", kind=""),),
            DENY_EGRESS: (rule("default-deny", "egress", kind=""),),
            WEB: (rule("web", "ingress", 0), rule("web", "ingress", 1), rule("other", "ingress")),
            WEB_DEFAULT: (rule("web", "ingress", -1),),
            BLOCK: (rule("block", "egressDeny"),),
        }.items():
            self.tables.rules.put(RuleSet(id=number, rules=rules))

    def flows(self, records: Records) -> Flows:
        """Flows of records, a copy; not in the ring."""
        parts: list[Flows] = []
        sequence = 0
        for start in range(0, len(records), CHUNK):
            parts.append(self.conversion.flows(records[start : start + CHUNK], CLOCK, sequence).copy())
            sequence += len(parts[-1])
        return np.concatenate(parts)

    def requests_of(self, *records: L7Record) -> Flows:
        """Flows of L7 records; not in the ring."""
        return self.requests.flows(records, 0)

    def put(self, records: Records) -> None:
        """Make flows of records, into the ring."""
        for start in range(0, len(records), CHUNK):
            self.ingest.take(records[start : start + CHUNK], CLOCK)

    def messages(self, flows: Flows, mask: Mask = EVERYTHING) -> list[flow_pb2.Flow]:
        """The flows as a reader gets them."""
        return [answer.flow for answer in self.responses(flows, mask)]

    def responses(self, flows: Flows, mask: Mask = EVERYTHING) -> list[observer_pb2.GetFlowsResponse]:
        """The answers that a reader gets."""
        encoded = FlowEncoder(self.tables, mask).responses(flows)
        return [observer_pb2.GetFlowsResponse.FromString(message) for message in encoded]


ADDRESSES = {
    1: ("10.0.0.1", "fd00::1"),
    2: ("10.0.0.2", "fd00::2"),
    9: ("10.0.1.9", "fd00:1::9"),
    0: ("192.0.2.7", "2001:db8::7"),
}
"""By pod: the local ones, the far one, and an address in the world."""
IDENTITIES = {1: 256, 2: 257, 9: 300, 0: 0x1000001}


def record(
    source: int = 2, destination: int = 1, /, *, kind: int = EventKind.VERDICT, ipv6: bool = False, **fields: Any
) -> Records:
    """One record, of pods as ADDRESSES has them; fields of EVENT override."""
    made = np.zeros(1, EVENT)
    made["kind"] = kind
    made["time"] = 1_000_000_000
    made["protocol"], made["tcp_flags"] = 6, 2
    made["source_port"], made["destination_port"] = 40_000, 80
    made["ether_type"] = 0x86DD if ipv6 else 0x0800
    made["direction"] = 2
    for side, pod in (("source", source), ("destination", destination)):
        made[side] = packed(ADDRESSES[pod][ipv6])
        made[f"{side}_identity"] = IDENTITIES[pod]
        made[f"{side}_endpoint"] = pod if pod in (1, 2) else 0
        made[f"{side}_mac"] = [2, 0, 0, 0, 0, pod]
    made["ifindex"] = IFINDEX_BASE + source if source in (1, 2) else 3
    if kind == EventKind.VERDICT:
        made["verdicts"] = (EventVerdict.EGRESS if source in (1, 2) else 0) | (
            EventVerdict.INGRESS if destination in (1, 2) else 0
        )
    for name, value in fields.items():
        made[name] = value
    return made


def packed(address: str) -> NDArray[np.uint8]:
    return np.frombuffer(pack_address(address), np.uint8)


def random_records(count: int, seed: int) -> Records:
    """Records of every kind, each field with values that the data path may give it."""
    rng = np.random.default_rng(seed)
    made = np.zeros(count, EVENT)
    pods = list(ADDRESSES)
    for row in range(count):
        one = made[row : row + 1]
        source, destination = rng.choice(pods, 2)
        one[:] = record(int(source), int(destination), ipv6=bool(rng.integers(2)))
        _fill(one, int(rng.choice(list(EventKind), p=[0.3, 0.3, 0.3, 0.1])), rng)
        if rng.random() < 0.1:
            one["source_identity"] = 0
        if rng.random() < 0.1:
            one["original_source"] = packed("10.96.0.1" if one["ether_type"] == 0x0800 else "fd00:96::1")
    made["time"] = 1_000_000_000 + np.sort(rng.integers(0, 10**9, count)).astype(np.uint64)
    return made


def _fill(one: Records, kind: int, rng: np.random.Generator) -> None:
    one["kind"] = kind
    one["verdicts"] = int(rng.integers(0, 32))
    one["protocol"] = int(rng.choice([0, 1, 2, 6, 17, 58, 132]))
    one["tcp_flags"] = int(rng.integers(0, 256)) if one["protocol"] == 6 else 0
    one["source_port"], one["destination_port"] = rng.choice([3, 8, 53, 40_000]), rng.choice([0, 1, 80, 65_535])
    one["ct_state"] = int(rng.integers(0, 6))
    one["match_egress"], one["match_ingress"] = rng.integers(0, 7, 2)
    one["rule_set_egress"], one["rule_set_ingress"] = rng.choice([0, ALLOW_ALL, WEB, BLOCK, 999], 2)
    one["packets"], one["length"] = rng.integers(1, 100, 2)
    one["proxy_port"] = int(rng.choice([0, 0, 10_000]))
    one["socket_cookie"] = int(rng.choice([0, 77]))
    if kind == EventKind.DROP:
        reasons = [*DropReason, DropReason.POLICY_DENIED, DropReason.POLICY_DENIED, DropReason.POLICY_DENY]
        one["reason"] = int(rng.choice(reasons))
        one["point"] = int(rng.choice([Point.FROM_ENDPOINT, Point.FROM_HOST]))
        one["direction"] = int(rng.integers(0, 3))
        one["file"], one["line"] = int(rng.choice(list(SourceFile))), int(rng.integers(0, 500))
        if rng.random() < 0.1:  # before the header was read
            one["source"] = one["destination"] = 0
    elif kind == EventKind.SOCK:
        one["point"] = int(rng.integers(1, 5))
        one["cgroup_id"] = 4242
    else:
        one["point"] = int(rng.choice([Point.TO_ENDPOINT, Point.TO_PROXY, Point.TO_HOST, Point.TO_STACK]))


def http(code: int = 0, url: str = "http://web/api?x=1", **fields: Any) -> L7Record:
    """An HTTP record from the client to web; a response, and so of the other direction, with a code."""
    one = HttpRecord(
        method="GET", url=url, protocol="HTTP/1.1", code=code,
        headers=(HttpHeader(name="X-Z", value="1"), HttpHeader(name="Accept", value="*/*")),
    )  # fmt: skip
    return l7(L7Type.RESPONSE if code else L7Type.REQUEST, http=one, **fields)


def dns(rcode: int = 0, *, answer: bool = False, **fields: Any) -> L7Record:
    """A DNS record."""
    one = DnsRecord(
        query="web.shop.", qtypes=("A",), rcode=rcode, ips=("10.0.0.1",) if answer and not rcode else (),
        ttl=30 * answer, rrtypes=("A",) if answer else (),
    )  # fmt: skip
    return l7(L7Type.RESPONSE if answer else L7Type.REQUEST, dns=one, protocol=17, **fields)


def l7(kind: L7Type, **fields: Any) -> L7Record:
    client, server = ("destination", "source") if kind == L7Type.RESPONSE else ("source", "destination")
    defaults: dict[str, Any] = {
        "time": CLOCK, "type": kind, "verdict": L7Verdict.FORWARDED, "ingress": True, "rule_set": WEB,
        client: "10.0.0.2", f"{client}_port": 40_000, f"{client}_endpoint": 2, f"{client}_identity": 257,
        server: "10.0.0.1", f"{server}_port": 80, f"{server}_endpoint": 1, f"{server}_identity": 256,
    }  # fmt: skip
    return L7Record(**{**defaults, **fields})
