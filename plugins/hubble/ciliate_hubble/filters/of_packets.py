"""What the fields of FlowFilter mean that ask what the packet was and what became of it."""

from __future__ import annotations

import re

import numpy as np
from ciliate.model.endpoint import IFINDEX_BASE
from ciliate.model.event import EventVerdict

from ciliate_hubble.api import flow_pb2 as pb
from ciliate_hubble.columns import EventType, Flows, Reply, Verdict
from ciliate_hubble.encoding.summary import FLAGS, ICMP, ICMPV6, IGMP, SCTP, TCP, UDP, VRRP
from ciliate_hubble.filters.addresses import AddressError, addresses
from ciliate_hubble.filters.errors import FilterError
from ciliate_hubble.filters.field import Field, Meaning
from ciliate_hubble.filters.predicates import (
    EndPredicate,
    L7Predicate,
    Mask,
    Predicate,
    among,
    any_of,
    everything,
    isin,
    nothing,
)  # fmt: skip


def _ips(column: str) -> Meaning:
    def meaning(field: Field) -> Predicate:
        try:
            return addresses(column, list(field.values))
        except AddressError as error:
            text, index = error.args
            raise FilterError(f"{field.path}[{index}]", text) from error

    return meaning


def _numbers(column: str) -> Meaning:
    return lambda field: among(column, field.values)


def _ports(side: str) -> Meaning:
    def port(text: str) -> int:
        if not re.fullmatch(r"\d{1,5}", text) or int(text) > 65535:
            raise ValueError(f"{text!r} is no port: write a number from 0 to 65535")
        return int(text)

    def meaning(field: Field) -> Predicate:
        ports = set(field.each(port, ValueError))
        with_ports = among("protocol", (TCP, UDP, SCTP))
        of_side = among(f"{side}_port", ports)
        return lambda flows: with_ports(flows) & of_side(flows)

    return meaning


_PROTOCOLS = {
    "icmp": (ICMP, ICMPV6), "icmpv4": (ICMP,), "icmpv6": (ICMPV6,), "tcp": (TCP,), "udp": (UDP,), "sctp": (SCTP,),
    "vrrp": (VRRP,), "igmp": (IGMP,),
}  # fmt: skip
_L7_PROTOCOLS = ("dns", "http", "kafka")


def _protocols(field: Field) -> Predicate:
    def check(text: str) -> str:
        if text.lower() not in _PROTOCOLS and text.lower() not in _L7_PROTOCOLS:
            raise ValueError(f"{text!r} is no protocol; there are {', '.join((*_PROTOCOLS, *_L7_PROTOCOLS))}")
        return text.lower()

    names = set(field.each(check, ValueError))
    numbers = {number for name in names for number in _PROTOCOLS.get(name, ())}
    predicates = [among("protocol", numbers)]
    if "http" in names:
        predicates.append(L7Predicate(field.tables, lambda entry: entry.record.http is not None))
    if "dns" in names:
        predicates.append(L7Predicate(field.tables, lambda entry: entry.record.dns is not None))
    return any_of(predicates)


def _event_types(field: Field) -> Predicate:
    wanted = [(e.type, e.sub_type if e.match_sub_type else None) for e in field.values]

    def mask(flows: Flows) -> Mask:
        kinds = flows["kind"]
        subs = np.where(kinds == EventType.DROP, flows["reason"], flows["point"])
        subs[(kinds == EventType.POLICY_VERDICT) | (kinds == EventType.L7)] = 0
        found = nothing(flows)
        for kind, sub in wanted:
            found |= (kinds == kind if kind else True) & (subs == sub if sub is not None else True)
        return found

    return mask


def _replies(field: Field) -> Predicate:
    wanted = set(field.values)

    def mask(flows: Flows) -> Mask:
        reply = flows["reply"]
        found = reply == Reply.YES if True in wanted else nothing(flows)
        if False in wanted:
            absent = (reply == Reply.ABSENT) & (flows["verdict"] == Verdict.DROPPED)
            found = found | (reply == Reply.NO) | absent
        return found

    return mask


def _drop_reasons(field: Field) -> Predicate:
    reasons = among("reason", field.values)
    dropped = among("verdict", [Verdict.DROPPED])
    return lambda flows: dropped(flows) & reasons(flows)


def _tcp_flags(field: Field) -> Predicate:
    def bits(flags: pb.TCPFlags) -> int:
        return sum(getattr(flags, name) << bit for bit, name in enumerate(FLAGS))

    wanted = [bits(flags) for flags in field.values if not flags.NS]  # the data path doesn't know that flag

    def mask(flows: Flows) -> Mask:
        found = nothing(flows)
        for flags in wanted:
            found |= (flows["tcp_flags"] & flags) == flags
        tcp: Mask = flows["protocol"] == TCP
        return found & tcp

    return mask


def _ip_versions(field: Field) -> Predicate:
    return among("family", [{pb.IPv4: 4, pb.IPv6: 6, pb.IP_NOT_USED: 0}.get(value, -1) for value in field.values])


def _interfaces(field: Field) -> Predicate:
    def named(flows: Flows, name: str) -> Mask:
        found = nothing(flows)
        indices = flows["ifindex"]
        others = set(indices[indices < IFINDEX_BASE].tolist())
        for side in ("source", "destination"):
            own = indices == flows[f"{side}_endpoint"] + np.uint32(IFINDEX_BASE)
            found |= own & EndPredicate(side, field.tables, lambda end: end.interface == name)(flows)
        return found | isin(indices, [index for index in others if field.tables.interfaces.name(index) == name])

    def mask(flows: Flows) -> Mask:
        found = nothing(flows)
        for value in field.values:
            one = flows["ifindex"] == value.index if value.index else everything(flows)
            found |= one & named(flows, value.name) if value.name else one
        return found

    return mask


def _encrypted(field: Field) -> Predicate:
    wanted = set(field.values)

    def mask(flows: Flows) -> Mask:
        encrypted: Mask = ((flows["verdicts"] & EventVerdict.ENCRYPTED) != 0) & (flows["family"] != 0)
        return everything(flows) if wanted == {True, False} else encrypted == (True in wanted)

    return mask


MEANINGS: dict[str, Meaning] = {
    "source_ip": _ips("source"),
    "destination_ip": _ips("destination"),
    "source_ip_xlated": _ips("original_source"),
    "source_identity": _numbers("source_identity"),
    "destination_identity": _numbers("destination_identity"),
    "source_port": _ports("source"),
    "destination_port": _ports("destination"),
    "verdict": _numbers("verdict"),
    "traffic_direction": _numbers("direction"),
    "event_type": _event_types,
    "reply": _replies,
    "drop_reason_desc": _drop_reasons,
    "protocol": _protocols,
    "tcp_flags": _tcp_flags,
    "ip_version": _ip_versions,
    "interface": _interfaces,
    "encrypted": _encrypted,
}
