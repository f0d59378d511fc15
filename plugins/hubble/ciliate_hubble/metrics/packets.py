"""Metrics of packets: flow, drop, tcp, icmp, port-distribution, flows-to-world, policy."""

from __future__ import annotations

import numpy as np
from ciliate.model.reasons import DropReason as OurReason

from ciliate_hubble.api import flow_pb2
from ciliate_hubble.columns import EventType, Reply, Verdict
from ciliate_hubble.encoding.summary import summary
from ciliate_hubble.metrics.batch import DNS, HTTP, POINTS, PROTOCOLS, Batch, direction_text
from ciliate_hubble.metrics.counting import FlowMetric, codes
from ciliate_hubble.metrics.options import MetricOptions
from ciliate_hubble.metrics.series import Labels

_TYPES = {
    EventType.DROP: "Drop",
    EventType.TRACE: "Trace",
    EventType.POLICY_VERDICT: "PolicyVerdict",
    EventType.SOCK: "TraceSock",
    EventType.L7: "L7",
}
_TCP, _FIN, _SYN, _RST, _ACK = 6, 1, 2, 4, 16
_MATCHES = ("none", "l3-only", "l3-l4", "l4-only", "all", "l3-proto", "proto-only")
_REASONS = {value: name for name, value in flow_pb2.DropReason.items()} | {
    int(reason): reason.name for reason in OurReason if reason >= 240
}


def _verdict(batch: Batch, row: int) -> str:
    return Verdict(int(batch.verdict[row])).name


class Flow(FlowMetric):
    """hubble_flows_processed_total."""

    def __init__(self, options: MetricOptions) -> None:
        super().__init__(options)
        self._flows = self.counter(
            "flows_processed_total", "Total number of flows processed", "protocol", "type", "subtype", "verdict"
        )

    def count(self, batch: Batch) -> None:
        """All flows."""
        points = np.where(batch.kind == EventType.TRACE, batch.flows["point"], 0)
        whole = codes((batch.protocol, 4), (batch.kind, 8), (points, 8), (batch.verdict, 3))
        self.grouped(self._flows, batch, None, whole, lambda row: self._labels(batch, row))

    def _labels(self, batch: Batch, row: int) -> Labels:
        kind, point, protocol = batch.kind[row], int(batch.flows["point"][row]), PROTOCOLS[batch.protocol[row]]
        subtype = ""
        if kind == EventType.TRACE:
            subtype = POINTS[point] if point < len(POINTS) else str(point)
        elif kind == EventType.L7:
            subtype = protocol if protocol in ("DNS", "HTTP") else ""
        return protocol, _TYPES.get(EventType(kind), str(kind)), subtype, _verdict(batch, row)


class Drop(FlowMetric):
    """hubble_drop_total. The policy verdict that comes beside a drop is not another."""

    def __init__(self, options: MetricOptions) -> None:
        super().__init__(options)
        self._drops = self.counter("drop_total", "Number of drops", "reason", "protocol")

    def count(self, batch: Batch) -> None:
        """Flows that were dropped."""
        rows = np.flatnonzero((batch.verdict == Verdict.DROPPED) & (batch.kind != EventType.POLICY_VERDICT))
        if len(rows):
            whole = codes((batch.flows["reason"][rows], 8), (batch.protocol[rows], 4))
            self.grouped(self._drops, batch, rows, whole, lambda row: self._labels(batch, row))

    def _labels(self, batch: Batch, row: int) -> Labels:
        reason = int(batch.flows["reason"][row])
        return _REASONS.get(reason, str(reason)), PROTOCOLS[batch.protocol[row]]


class Tcp(FlowMetric):
    """hubble_tcp_flags_total: of packets that were let through."""

    _FLAGS = (
        ("SYN", _SYN | _ACK, _SYN),
        ("SYN-ACK", _SYN | _ACK, _SYN | _ACK),
        ("FIN", _FIN, _FIN),
        ("RST", _RST, _RST),
    )

    def __init__(self, options: MetricOptions) -> None:
        super().__init__(options)
        self._flags = self.counter("tcp_flags_total", "TCP flag occurrences", "flag", "family")

    def count(self, batch: Batch) -> None:
        """Packets that begin or end a connection."""
        flags = np.ascontiguousarray(batch.flows["tcp_flags"])
        told = (flags & (_SYN | _FIN | _RST) != 0) & (batch.flows["protocol"] == _TCP) & batch.forwarded & batch.packets
        rows = np.flatnonzero(told)
        if not len(rows):
            return
        flags, families = flags[rows], batch.flows["family"][rows]
        for number, (name, mask, value) in enumerate(self._FLAGS):
            chosen = np.flatnonzero(flags & mask == value)
            whole = codes((families[chosen], 8)) | np.uint64(number << 8)
            self.grouped(self._flags, batch, rows[chosen], whole, lambda row, name=name: (name, _family(batch, row)))  # type: ignore[misc]


class Icmp(FlowMetric):
    """hubble_icmp_total."""

    def __init__(self, options: MetricOptions) -> None:
        super().__init__(options)
        self._messages = self.counter("icmp_total", "Number of ICMP messages", "family", "type")

    def count(self, batch: Batch) -> None:
        """ICMP messages."""
        protocol = batch.flows["protocol"]
        rows = np.flatnonzero(((protocol == 1) | (protocol == 58)) & batch.packets)
        if len(rows):
            flows = batch.flows
            whole = codes((flows["source_port"][rows], 8), (flows["destination_port"][rows], 8), (protocol[rows], 8))
            self.grouped(self._messages, batch, rows, whole, lambda row: self._labels(batch, row))

    def _labels(self, batch: Batch, row: int) -> Labels:
        flow = batch.flows[row]
        text = summary(int(flow["protocol"]), 0, int(flow["source_port"]), int(flow["destination_port"]))
        return _family(batch, row), text.partition(" ")[2]


class PortDistribution(FlowMetric):
    """hubble_port_distribution_total: requests that were let through, by the port that they are for."""

    def __init__(self, options: MetricOptions) -> None:
        super().__init__(options)
        self._ports = self.counter(
            "port_distribution_total", "Numbers of packets distributed by destination port", "protocol", "port"
        )
        self._with_ports = np.zeros(len(PROTOCOLS), np.bool_)
        self._with_ports[[PROTOCOLS.index(name) for name in ("TCP", "UDP", "SCTP")]] = True

    def count(self, batch: Batch) -> None:
        """Packets of TCP, UDP and SCTP that are no replies."""
        told = self._with_ports[batch.protocol] & batch.forwarded & batch.packets & (batch.flows["reply"] != Reply.YES)
        rows = np.flatnonzero(told)
        if len(rows):
            whole = codes((batch.flows["destination_port"][rows], 16), (batch.protocol[rows], 4))
            self.grouped(self._ports, batch, rows, whole, lambda row: self._labels(batch, row))

    def _labels(self, batch: Batch, row: int) -> Labels:
        return PROTOCOLS[batch.protocol[row]], str(batch.flows["destination_port"][row])


class FlowsToWorld(FlowMetric):
    """hubble_flows_to_world_total: what leaves for outside of the cluster, replies not counted."""

    def __init__(self, options: MetricOptions) -> None:
        super().__init__(options)
        self._by_port = "port" in options.switches
        port = ("port",) if self._by_port else ()
        self._flows = self.counter(
            "flows_to_world_total", "Total number of flows to reserved:world", "protocol", "verdict", *port
        )
        self._world: dict[int, bool] = {}

    def count(self, batch: Batch) -> None:
        """Flows whose destination is labelled `reserved:world`."""
        flows, switches = batch.flows, self.options.switches
        told = (flows["reply"] != Reply.YES) & batch.packets
        if "any-drop" not in switches:
            told &= (batch.verdict != Verdict.DROPPED) | (flows["reason"] == OurReason.POLICY_DENIED)
        if "syn-only" in switches:
            told &= (flows["protocol"] != _TCP) | (flows["tcp_flags"] & (_SYN | _ACK) == _SYN)
        ends, places = np.unique(flows["destination_end"], return_inverse=True)
        world = np.array([self._is_world(batch, end) for end in ends.tolist()], np.bool_)
        rows = np.flatnonzero(told & world[places])
        if not len(rows):
            return
        whole = codes((batch.protocol[rows], 4), (batch.verdict[rows], 3))
        if self._by_port:
            whole |= flows["destination_port"][rows].astype(np.uint64) << np.uint64(7)
        self.grouped(self._flows, batch, rows, whole, lambda row: self._labels(batch, row))

    def forget_keys(self) -> None:
        """Ends too."""
        super().forget_keys()
        self._world.clear()

    def _is_world(self, batch: Batch, end: int) -> bool:
        known = self._world.get(end)
        if known is None:
            labels = batch.tables.ends.rows[end].labels
            known = self._world[end] = any(label.startswith("reserved:world") for label in labels)
        return known

    def _labels(self, batch: Batch, row: int) -> Labels:
        port = (str(batch.flows["destination_port"][row]),) if self._by_port else ()
        return PROTOCOLS[batch.protocol[row]], _verdict(batch, row), *port


class Policy(FlowMetric):
    """hubble_policy_verdicts_total: what policies said of packets and of requests."""

    def __init__(self, options: MetricOptions) -> None:
        super().__init__(options)
        self._verdicts = self.counter(
            "policy_verdicts_total", "Total number of policy verdicts", "direction", "match", "action"
        )

    def count(self, batch: Batch) -> None:
        """Policy verdicts, and requests that a proxy judged."""
        l7 = (batch.kind == EventType.L7) & (batch.flows["reply"] != Reply.YES)
        rows = np.flatnonzero((batch.kind == EventType.POLICY_VERDICT) | l7)
        if len(rows):
            whole = codes(
                (batch.direction[rows], 2),
                (batch.flows["match"][rows], 3),
                (batch.verdict[rows], 3),
                (batch.protocol[rows], 4),
            )
            keys = whole | ((batch.kind[rows] == EventType.L7).astype(np.uint64) << np.uint64(12))
            self.grouped(self._verdicts, batch, rows, keys, lambda row: self._labels(batch, row))

    def _labels(self, batch: Batch, row: int) -> Labels:
        number = int(batch.flows["match"][row])
        match = _MATCHES[number] if number < len(_MATCHES) else str(number)
        if batch.kind[row] == EventType.L7:
            match = {DNS: "l7/dns", HTTP: "l7/http"}.get(int(batch.protocol[row]), "l7")
        return direction_text(int(batch.direction[row])), match, _verdict(batch, row).lower()


def _family(batch: Batch, row: int) -> str:
    return {4: "IPv4", 6: "IPv6"}.get(int(batch.flows["family"][row]), "Unknown")
