"""Rows of flows as GetFlowsResponse messages: a column at a time, each row's fields joined in the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ciliate import __version__
from ciliate.model.endpoint import IFINDEX_BASE
from ciliate.model.event import EventVerdict

from ciliate_hubble.columns import EventType, Flows, TrafficDirection, Verdict
from ciliate_hubble.encoding import parts, wire
from ciliate_hubble.encoding.mask import EVERYTHING, Mask, cut
from ciliate_hubble.encoding.summary import summary
from ciliate_hubble.ingest.meaning import DENIALS
from ciliate_hubble.tables import FlowTables

K = TypeVar("K")
Column = list[bytes]
CACHED = 4096
"""Values of a part that are remembered; then it begins anew."""
SHARED = 8
"""Masks whose encoders are kept for other readers."""

_POLICIES = {
    "egress_allowed_by": 21001,
    "ingress_allowed_by": 21002,
    "egress_denied_by": 21004,
    "ingress_denied_by": 21005,
}
_RESPONSE_FLOW = wire.tag(1, 2)
_RESPONSE_NODE_NAME, _RESPONSE_TIME = 1000, 1001


class _Cache(dict[Any, bytes]):
    """Values of a part by what they are made of."""

    def __init__(self, make: Callable[..., bytes]) -> None:
        self._make = make

    def __missing__(self, key: Any) -> bytes:
        if len(self) >= CACHED:
            self.clear()
        value = self[key] = self._make(*key)
        return value


class FlowEncoder:
    """Encodes rows with one mask. Readers with the same mask may share one.

    policies: whether to name the policies behind a flow.
    """

    def __init__(self, tables: FlowTables, mask: Mask = EVERYTHING, *, policies: bool = True) -> None:
        self._tables = tables
        self._mask = mask
        wants = mask.fields
        self._life = tables.ends.life
        self._rules_version = tables.rules.version
        self._ends: dict[str, dict[int, bytes]] = {"source": {}, "destination": {}}
        self._outcome = _Cache(lambda verdict, reason: parts.outcome(verdict, reason, wants))
        self._times = _Cache(lambda field, time: wire.message(field, wire.timestamp(time)))
        self._ethernet = _Cache(parts.ethernet)
        self._ip = _Cache(parts.ip)
        self._layer4 = _Cache(parts.layer4)
        self._kinds = _Cache(parts.kind)
        self._interface = _Cache(self._interface_of)
        self._traces = _Cache(parts.trace_reason)
        self._events = _Cache(lambda *row: parts.event(row, wants))
        self._policies = _Cache(self._policies_of)
        self._summaries = _Cache(lambda *of: wire.text(100000, summary(*of)))
        self._node_name = wire.text(11, tables.node_name)
        self._emitter = wire.message(41, wire.text(1, "Ciliate") + wire.text(2, __version__))
        self._columns = [make for name, make in self._makers(policies) if name in wants or name.startswith("+")]
        self._tail = self._node_name_of_response()

    def responses(self, flows: Flows) -> list[bytes]:
        """One GetFlowsResponse for each row, in order. Never waits."""
        self._renew()
        columns = [make(flows) for make in self._columns]
        bodies = [b"".join(fields) for fields in zip(*columns, strict=True)] if columns else [b""] * len(flows)
        if self._mask.rest is not None:
            return [cut(body, self._mask.rest) for body in bodies]
        out = []
        tail = self._tail
        times = self._of_time(flows, _RESPONSE_TIME) if "time" in self._mask.fields else [b""] * len(flows)
        for body, time in zip(bodies, times, strict=True):
            out.append(b"".join((_RESPONSE_FLOW, wire.varint(len(body)), body, tail, time)))
        return out

    def _makers(self, policies: bool) -> list[tuple[str, Callable[[Flows], Column]]]:
        """Columns in the order of the fields' numbers. A name with + is of several fields, which look to the mask."""
        made: list[tuple[str, Callable[[Flows], Column]]] = [
            ("time", lambda flows: self._of_time(flows, 1)),
            ("+outcome", self._outcomes),
            ("ethernet", self._ethernets),
            ("IP", self._ips),
            ("l4", self._layers4),
            ("source", lambda flows: self._ends_of(flows, "source", 8)),
            ("destination", lambda flows: self._ends_of(flows, "destination", 9)),
            ("Type", lambda flows: _cached(self._kinds, flows, "kind")),
            ("node_name", lambda flows: [self._node_name] * len(flows)),
            ("l7", lambda flows: self._of_l7(flows, 15)),
            ("+event", self._events_of),
            ("interface", self._interfaces),
            ("proxy_port", lambda flows: [wire.number(29, port) for port in flows["proxy_port"].tolist()]),
            ("trace_context", lambda flows: self._of_l7(flows, 30)),
            ("sock_xlate_point", _sock_points),
            ("socket_cookie", lambda flows: [wire.number(32, n) for n in flows["socket_cookie"].tolist()]),
            ("cgroup_id", lambda flows: [wire.number(33, n) for n in flows["cgroup_id"].tolist()]),
            ("uuid", self._uuids),
            ("trace_reason", lambda flows: _cached(self._traces, flows, "kind", "ct_state")),
            ("node_labels", self._node_labels),
            ("file", lambda flows: _mapped(parts.file, flows, "kind", "file", "line")),
            ("tunnel", lambda flows: [_tunnel(vni) for vni in flows["tunnel_id"].tolist()]),
            ("emitter", lambda flows: [self._emitter] * len(flows)),
            ("Summary", self._summaries_of),
        ]
        if policies:
            made.insert(-1, ("+policies", self._policies_by_row))
        return made

    def _renew(self) -> None:
        """Forget what was made of rows that have changed hands."""
        if self._life != self._tables.ends.life:
            self._life = self._tables.ends.life
            self._interface.clear()
            for known in self._ends.values():
                known.clear()
        if self._rules_version != self._tables.rules.version:
            self._rules_version = self._tables.rules.version
            self._policies.clear()

    def _of_time(self, flows: Flows, field: int) -> Column:
        times = self._times
        return [times[field, time] for time in flows["time"].tolist()]

    def _outcomes(self, flows: Flows) -> Column:
        return _cached(self._outcome, flows, "verdict", "reason")

    def _ethernets(self, flows: Flows) -> Column:
        sources, destinations = _packed(flows, "source_mac"), _packed(flows, "destination_mac")
        return [self._ethernet[key] for key in zip(sources, destinations, strict=True)]

    def _ips(self, flows: Flows) -> Column:
        addresses = (_packed(flows, name) for name in ("source", "destination", "original_source"))
        encrypted = ((flows["verdicts"] & EventVerdict.ENCRYPTED) != 0).tolist()
        return [self._ip[key] for key in zip(*addresses, flows["family"].tolist(), encrypted, strict=True)]

    def _layers4(self, flows: Flows) -> Column:
        return _cached(self._layer4, flows, "protocol", "source_port", "destination_port", "tcp_flags")

    def _ends_of(self, flows: Flows, side: str, field: int) -> Column:
        known, ends = self._ends[side], self._tables.ends.rows
        wants = self._mask.source if side == "source" else self._mask.destination
        out = []
        for index in flows[f"{side}_end"].tolist():
            body = known.get(index)
            if body is None:
                body = known[index] = parts.end(field, ends[index], wants)
            out.append(body)
        return out

    def _of_l7(self, flows: Flows, field: int) -> Column:
        return [self._l7_part(number, field) if number else b"" for number in flows["l7"].tolist()]

    def _l7_part(self, number: int, field: int) -> bytes:
        entry = self._tables.l7.get(number)
        body = b"" if entry is None else entry.layer7 if field == 15 else entry.trace
        return wire.message(field, body) if body else b""

    def _events_of(self, flows: Flows) -> Column:
        return _cached(self._events, flows, "kind", "point", "reason", "direction", "match", "reply")

    def _interfaces(self, flows: Flows) -> Column:
        names = ("ifindex", "source_endpoint", "source_end", "destination_endpoint", "destination_end")
        return [self._interface[row] if row[0] else b"" for row in _keys(flows, *names)]

    def _interface_of(self, index: int, source: int, source_end: int, destination: int, destination_end: int) -> bytes:
        ends = self._tables.ends.rows
        if index == IFINDEX_BASE + source:
            name = ends[source_end].interface
        elif index == IFINDEX_BASE + destination:
            name = ends[destination_end].interface
        else:
            name = self._tables.interfaces.name(index)
        return wire.message(28, wire.number(1, index) + wire.text(2, name))

    def _uuids(self, flows: Flows) -> Column:
        uuid = self._tables.uuids.uuid
        return [wire.text(34, uuid(sequence)) for sequence in flows["sequence"].tolist()]

    def _node_labels(self, flows: Flows) -> Column:
        at = self._tables.node_labels.at
        return [wire.texts(37, at(sequence)) for sequence in flows["sequence"].tolist()]

    def _policies_by_row(self, flows: Flows) -> Column:
        rows = _keys(flows, "rule_set_egress", "rule_set_ingress", "kind", "verdict", "direction", "reason")
        return [self._policies[row] if row[0] or row[1] else b"" for row in rows]

    def _policies_of(self, egress: int, ingress: int, kind: int, verdict: int, direction: int, reason: int) -> bytes:
        denies = denying(kind, verdict, direction, reason)
        sets = {
            "egress_denied_by" if denies == TrafficDirection.EGRESS else "egress_allowed_by": egress,
            "ingress_denied_by" if denies == TrafficDirection.INGRESS else "ingress_allowed_by": ingress,
        }
        return b"".join(
            parts.policies(number, self._tables.rules.rules(sets[name]))
            for name, number in _POLICIES.items()
            if name in sets and name in self._mask.fields
        )

    def _summaries_of(self, flows: Flows) -> Column:
        numbers = flows["l7"].tolist()
        rows = _keys(flows, "protocol", "tcp_flags", "source_port", "destination_port")
        out = []
        for number, (protocol, flags, source_port, destination_port) in zip(numbers, rows, strict=True):
            if number:
                entry = self._tables.l7.get(number)
                out.append(wire.text(100000, entry.summary) if entry is not None else b"")
            elif protocol in (1, 58):
                out.append(self._summaries[protocol, 0, source_port, destination_port])
            else:
                out.append(self._summaries[protocol, flags, 0, 0])
        return out

    def _node_name_of_response(self) -> bytes:
        wanted = "node_name" in self._mask.fields
        return wire.text(_RESPONSE_NODE_NAME, self._tables.node_name) if wanted else b""


class FlowEncoders:
    """Encoders by mask, the latest few, so that readers share what is encoded."""

    def __init__(self, tables: FlowTables, *, policies: bool = True) -> None:
        self._tables = tables
        self.policies = policies
        self._encoders: dict[Mask, FlowEncoder] = {}

    def of(self, mask: Mask) -> FlowEncoder:
        """The encoder of a mask."""
        encoder = self._encoders.pop(mask, None) or FlowEncoder(self._tables, mask, policies=self.policies)
        self._encoders[mask] = encoder
        if len(self._encoders) > SHARED:
            del self._encoders[next(iter(self._encoders))]
        return encoder


def denying(kind: int, verdict: int, direction: int, reason: int) -> int:
    """The direction whose policy has denied a flow, or would have but for an audit; 0 if none has."""
    by_policy = verdict == Verdict.DROPPED and (reason in DENIALS or kind == EventType.L7)
    return direction if by_policy or verdict == Verdict.AUDIT else TrafficDirection.UNKNOWN


def _keys(flows: Flows, *names: str) -> zip[tuple[int, ...]]:
    return zip(*(flows[name].tolist() for name in names), strict=True)


def _cached(cache: _Cache, flows: Flows, *names: str) -> Column:
    return [cache[row] for row in _keys(flows, *names)]


def _mapped(make: Callable[..., bytes], flows: Flows, *names: str) -> Column:
    return [make(*row) for row in _keys(flows, *names)]


def _packed(flows: Flows, name: str) -> list[bytes]:
    """A column of byte arrays, as one `bytes` a row."""
    size = flows.dtype[name].itemsize
    packed = flows[name].tobytes()
    return [packed[at : at + size] for at in range(0, len(packed), size)]


def _sock_points(flows: Flows) -> Column:
    rows = _keys(flows, "kind", "point")
    return [wire.number(31, point) if kind == EventType.SOCK else b"" for kind, point in rows]


def _tunnel(vni: int) -> bytes:
    return wire.message(39, wire.number(4, vni)) if vni else b""
