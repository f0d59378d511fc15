"""Parts of a flow that recur: each is a field, or some that follow each other, made of few values."""

from __future__ import annotations

import socket
from collections.abc import Callable, Container
from functools import lru_cache

from ciliate.model.event import SourceFile, TraceReason
from ciliate.model.policy import Rule

from ciliate_hubble.columns import EventType, Reply
from ciliate_hubble.encoding import wire
from ciliate_hubble.encoding.summary import FLAGS, ICMP, ICMPV6, IGMP, SCTP, TCP, UDP, VRRP
from ciliate_hubble.ends import End, Workload
from ciliate_hubble.words import RULE_LABEL

Wants = Container[str]
"""Names of the fields that are wanted."""

FLOW_TYPES = {int(EventType.SOCK): 3, int(EventType.L7): 2}
"""flow.FlowType by event type; of all others L3_L4, 1."""
TO_ENDPOINT = 101
"""flow.TraceObservationPoint of sub type 0, as 0 is unknown there."""
DEFAULT_KIND = "Default"
"""flow.Policy.kind of what no object states: allow-all, default-deny, allow-localhost-ingress."""
_V4_MAPPED = b"\x00" * 10 + b"\xff\xff"
_FILES = {int(file): f"{file.name.lower()}.h" for file in SourceFile} | {int(SourceFile.NODE): "node.bpf.c"}


def address_text(packed: bytes) -> str:
    """An address of 16 bytes as text."""
    if packed[:12] == _V4_MAPPED:
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed)


def ethernet(source: bytes, destination: bytes) -> bytes:
    """flow.Ethernet of two MACs; nothing if both are zero."""
    if not any(source) and not any(destination):
        return b""
    return wire.message(4, wire.text(1, source.hex(":")) + wire.text(2, destination.hex(":")))


def ip(source: bytes, destination: bytes, xlated: bytes, family: int, encrypted: bool) -> bytes:
    """flow.IP; nothing if there was no IP to see."""
    if not family:
        return b""
    body = (
        wire.text(1, address_text(source))
        + wire.text(2, address_text(destination))
        + wire.number(3, 1 if family == 4 else 2)
        + wire.number(4, encrypted)
        + (wire.text(5, address_text(xlated)) if any(xlated) else b"")
    )
    return wire.message(5, body)


@lru_cache(256)
def tcp_flags(flags: int) -> bytes:
    """flow.TCP.flags."""
    return wire.message(3, b"".join(wire.number(bit + 1, flags >> bit & 1) for bit in range(len(FLAGS))))


def layer4(protocol: int, source_port: int, destination_port: int, flags: int) -> bytes:
    """flow.Layer4; of ICMP with type and code in place of ports. Nothing for a protocol that Hubble doesn't know."""
    pair = wire.number(1, source_port) + wire.number(2, destination_port)
    if protocol == TCP:
        return wire.message(6, wire.message(1, pair + tcp_flags(flags)))
    field = {UDP: 2, ICMP: 3, ICMPV6: 4, SCTP: 5}.get(protocol)
    if field is not None:
        return wire.message(6, wire.message(field, pair))
    field = {VRRP: 6, IGMP: 7}.get(protocol)  # of which no record says more
    return b"" if field is None else wire.message(6, wire.message(field, b""))


def end(field: int, who: End, wants: Wants) -> bytes:
    """flow.Endpoint. wants: names of its fields."""
    makers: list[tuple[str, Callable[[], bytes]]] = [
        ("ID", lambda: wire.number(1, who.endpoint)),
        ("identity", lambda: wire.number(2, who.identity)),
        ("namespace", lambda: wire.text(3, who.namespace)),
        ("labels", lambda: wire.texts(4, who.labels)),
        ("pod_name", lambda: wire.text(5, who.pod)),
        ("workloads", lambda: b"".join(_workload(workload) for workload in who.workloads)),
        ("cluster_name", lambda: wire.text(7, who.cluster)),
    ]
    return wire.message(field, b"".join(make() for name, make in makers if name in wants))


def _workload(workload: Workload) -> bytes:
    return wire.message(6, wire.text(1, workload.name) + wire.text(2, workload.kind))


def outcome(verdict: int, reason: int, wants: Wants) -> bytes:
    """Fields 2 and 3."""
    dropped = wire.number(3, reason) if "drop_reason" in wants else b""
    return (wire.number(2, verdict) if "verdict" in wants else b"") + dropped


def kind(event: int) -> bytes:
    """Field 10."""
    return wire.number(10, FLOW_TYPES.get(event, 1))


def event(row: tuple[int, int, int, int, int, int], wants: Wants) -> bytes:
    """Fields 16 to 26, of (event type, sub type, drop reason, direction, match type, Reply)."""
    event_type, point, reason, direction, match, reply = row
    sub_type = reason if event_type == EventType.DROP else point
    if event_type in (EventType.POLICY_VERDICT, EventType.L7):
        sub_type = 0
    out = wire.number(16, reply == Reply.YES) if "reply" in wants else b""
    if "event_type" in wants:
        out += wire.message(19, wire.number(1, event_type) + wire.number(2, sub_type))
    if "traffic_direction" in wants:
        out += wire.number(22, direction)
    if "policy_match_type" in wants:
        out += wire.number(23, match)
    if "trace_observation_point" in wants and event_type == EventType.TRACE:
        out += wire.number(24, point or TO_ENDPOINT)
    if "drop_reason_desc" in wants:
        out += wire.number(25, reason)
    if "is_reply" in wants and reply:
        out += wire.message(26, wire.number(1, reply == Reply.YES))
    return out


def trace_reason(event_type: int, state: int) -> bytes:
    """Field 36."""
    if event_type != EventType.TRACE or state >= TraceReason.UNKNOWN:
        return b""
    return wire.number(36, state + 1)


def file(event_type: int, source: int, line: int) -> bytes:
    """Field 38: where in the data path's source a drop was decided."""
    if event_type != EventType.DROP or not source:
        return b""
    return wire.message(38, wire.text(1, _FILES.get(source, f"unknown({source})")) + wire.number(2, line))


def policies(field: int, rules: tuple[Rule, ...]) -> bytes:
    """Fields 21001 to 21005: the objects of some rules, each once, with labels that say which rules of theirs."""
    objects: dict[tuple[str, str, str, str, int], list[str]] = {}
    for rule in rules:
        places = objects.setdefault((rule.kind, rule.namespace, rule.name, rule.uid, rule.generation), [])
        if rule.kind:
            places.append(RULE_LABEL + rule.place)
    return b"".join(wire.message(field, _policy(*one, places)) for one, places in objects.items())


def _policy(kind: str, namespace: str, name: str, uid: str, generation: int, places: list[str]) -> bytes:
    return (
        wire.text(1, name)
        + wire.text(2, namespace)
        + wire.texts(3, policy_labels(kind, namespace, name, uid) + places)
        + wire.number(4, generation)
        + wire.text(5, kind or DEFAULT_KIND)
    )


def policy_labels(kind: str, namespace: str, name: str, uid: str) -> list[str]:
    """The labels by which Cilium names a policy; none of a default."""
    if not kind:
        return []
    prefix = "k8s:io.cilium.k8s.policy."
    found = [f"{prefix}derived-from={kind}", f"{prefix}name={name}"]
    return [*found, *([f"{prefix}namespace={namespace}"] if namespace else []), f"{prefix}uid={uid}"]
