"""What is put together of parts is what protobuf would write, field by field as the facts have it."""

from __future__ import annotations

import numpy as np
import pytest
from ciliate import __version__
from ciliate.model.base import unpack_address
from ciliate.model.event import EventKind, EventVerdict
from ciliate.model.policy import Rule, RuleSet
from ciliate.model.reasons import DropReason
from ciliate_hubble.api import flow_pb2 as pb
from ciliate_hubble.api.observer_pb2 import GetFlowsResponse
from ciliate_hubble.columns import EventType, Flows, Reply, Verdict
from ciliate_hubble.encoding.flows import FlowEncoder, FlowEncoders
from ciliate_hubble.encoding.mask import EVERYTHING, MaskError, compile_mask
from ciliate_hubble.encoding.summary import summary
from ciliate_hubble.ingest.meaning import DENIALS
from google.protobuf.field_mask_pb2 import FieldMask

from tests.unit.hubble.node import WEB, Node, dns, http, random_records, record, rule

FILES = "node.bpf.c parse.h neighbour.h fragment.h service.h judge.h flow.h icmp.h deliver.h translate.h point.h"
FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")


def sample(node: Node, seed: int = 0, count: int = 400) -> Flows:
    requests = node.requests_of(http(), http(404, latency=3_000_000), dns(), dns(answer=True), http(trace_id="ab" * 16))
    return np.concatenate([node.flows(random_records(count, seed)), requests])


@pytest.mark.parametrize("seed", range(3))
def test_each_flow_is_what_its_row_says(seed: int) -> None:
    node = Node()
    node.tables.node_labels.put(("zone=a",), 50)
    flows = sample(node, seed)
    for row, found in zip(flows, node.messages(flows), strict=True):
        assert found == slowly(node, row)


def test_bytes_are_those_of_protobufs_own_serialiser() -> None:
    node = Node()
    for message in FlowEncoder(node.tables).responses(sample(node)):
        assert GetFlowsResponse.FromString(message).SerializeToString(deterministic=True) == message


@pytest.mark.parametrize(
    "paths",
    [
        ["time"],
        ["verdict", "Summary", "l7"],
        ["drop_reason"],
        ["node_name", "uuid", "event_type", "is_reply", "reply"],
        ["source.pod_name", "destination.labels", "destination.ID"],
        ["source", "source.pod_name", "IP.source"],
        ["l4.TCP.flags", "source.workloads", "time.seconds"],
        ["egress_allowed_by", "ingress_denied_by", "trace_observation_point"],
        sorted(EVERYTHING.fields),
    ],
)
def test_a_mask_leaves_what_protobufs_own_would(paths: list[str]) -> None:
    node = Node()
    flows = sample(node)
    for whole, masked in zip(node.messages(flows), node.responses(flows, compile_mask(paths)), strict=True):
        wanted = pb.Flow()
        FieldMask(paths=paths).MergeMessage(whole, wanted)
        assert masked.flow == wanted
        assert masked.HasField("flow")
        assert masked.node_name == wanted.node_name
        assert masked.time == wanted.time


def test_no_path_is_everything() -> None:
    assert compile_mask([]) is EVERYTHING


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("sauce", "flow.Flow has no field 'sauce'"),
        ("source.pod", "source has no field 'pod'; there are ID, cluster_name"),
        ("verdict.x", "verdict has no fields of its own"),
        ("source_names.x", "source_names has no fields of its own"),
        ("", "no field ''"),
    ],
)
def test_a_path_that_is_none_is_refused_by_its_place(path: str, said: str) -> None:
    with pytest.raises(MaskError, match=r"field_mask\.paths\[1\]") as refused:
        compile_mask(["time", path])
    assert said in str(refused.value)


def test_a_rule_set_that_becomes_known_later_is_named_from_then_on() -> None:
    node = Node()
    encoder = FlowEncoder(node.tables)
    flows = node.flows(record(9, 1, rule_set_ingress=777))

    def named() -> list[str]:
        (message,) = encoder.responses(flows)
        return [policy.name for policy in GetFlowsResponse.FromString(message).flow.ingress_allowed_by]

    assert named() == []
    node.tables.rules.put(RuleSet(id=777, rules=(rule("late", "ingress"),)))
    assert named() == ["late"]
    node.tables.rules.delete(777)
    assert named() == ["late"]


def test_policies_are_left_out_where_the_setting_says_so() -> None:
    node = Node()
    flows = node.flows(record(9, 1, rule_set_ingress=WEB))
    (message,) = FlowEncoder(node.tables, policies=False).responses(flows)
    assert not GetFlowsResponse.FromString(message).flow.ingress_allowed_by


def test_readers_with_one_mask_share_what_is_encoded() -> None:
    encoders = FlowEncoders(Node().tables)
    assert encoders.of(compile_mask(["time", "l4"])) is encoders.of(compile_mask(["l4", "time"]))


@pytest.mark.parametrize(
    ("protocol", "flags", "kind", "code", "text"),
    [
        (6, 0x12, 0, 0, "TCP Flags: SYN, ACK"),
        (6, 0xFF, 0, 0, "TCP Flags: SYN, ACK, RST, FIN, PSH, URG, ECE, CWR"),
        (17, 0, 0, 0, "UDP"),
        (132, 0, 0, 0, "SCTP"),
        (1, 0, 8, 0, "ICMPv4 EchoRequest"),
        (1, 0, 3, 3, "ICMPv4 DestinationUnreachable(Port)"),
        (1, 0, 3, 99, "ICMPv4 DestinationUnreachable(Code: 99)"),
        (1, 0, 8, 7, "ICMPv4 EchoRequest(Code: 7)"),
        (1, 0, 200, 1, "ICMPv4 200(1)"),
        (58, 0, 135, 0, "ICMPv6 NeighborSolicitation"),
        (47, 0, 0, 0, ""),
    ],
)
def test_a_summary_is_spelled_as_hubbles(protocol: int, flags: int, kind: int, code: int, text: str) -> None:
    assert summary(protocol, flags, kind, code) == text


def slowly(node: Node, row: np.void) -> pb.Flow:
    """The flow of a row, a field after the other."""
    reason = row["reason"].item()
    flow = pb.Flow(verdict=row["verdict"].item(), drop_reason=reason, drop_reason_desc=reason)
    flow.time.FromNanoseconds(int(row["time"]))
    kind, reply = int(row["kind"]), int(row["reply"])
    flow.Type = {EventType.SOCK: pb.SOCK, EventType.L7: pb.L7}.get(EventType(kind), pb.L3_L4)
    flow.node_name = "node1"
    flow.event_type.type = kind
    if kind == EventType.DROP:
        flow.event_type.sub_type = int(row["reason"])
        if row["file"]:
            flow.file.name, flow.file.line = FILES.split()[row["file"] - 1], int(row["line"])
    elif kind in (EventType.TRACE, EventType.SOCK):
        flow.event_type.sub_type = int(row["point"])
    if kind == EventType.TRACE:
        flow.trace_observation_point = row["point"].item() or pb.TO_ENDPOINT
        if row["ct_state"] < 5:
            flow.trace_reason = row["ct_state"].item() + 1
    if kind == EventType.SOCK:
        flow.sock_xlate_point = row["point"].item()
    flow.traffic_direction = row["direction"].item()
    flow.policy_match_type = int(row["match"])
    if reply != Reply.ABSENT:
        flow.is_reply.value = flow.reply = reply == Reply.YES
    flow.proxy_port, flow.socket_cookie = int(row["proxy_port"]), int(row["socket_cookie"])
    flow.cgroup_id = int(row["cgroup_id"])
    flow.uuid = node.tables.uuids.uuid(int(row["sequence"]))
    flow.node_labels.extend(["zone=a"] if node.tables.node_labels.at(int(row["sequence"])) else [])
    flow.emitter.name, flow.emitter.version = "Ciliate", __version__
    _fill_headers(flow, row)
    _fill_ends(node, flow, row)
    _fill_policies(node, flow, row)
    entry = node.tables.l7.get(int(row["l7"])) if row["l7"] else None
    if entry is not None:
        flow.l7.ParseFromString(entry.layer7)
        flow.Summary = entry.summary
        if entry.record.trace_id:
            flow.trace_context.parent.trace_id = entry.record.trace_id
    return flow


def _fill_headers(flow: pb.Flow, row: np.void) -> None:
    addresses = {name: row[name].tobytes() for name in ("source", "destination", "original_source")}
    if row["family"]:
        flow.IP.source, flow.IP.destination = (str(unpack_address(addresses[n])) for n in ("source", "destination"))
        flow.IP.ipVersion = pb.IPv4 if row["family"] == 4 else pb.IPv6
        flow.IP.encrypted = bool(row["verdicts"] & EventVerdict.ENCRYPTED)
        if any(addresses["original_source"]):
            flow.IP.source_xlated = str(unpack_address(addresses["original_source"]))
    macs = [row[f"{side}_mac"].tobytes().hex(":") for side in ("source", "destination")]
    if macs != ["00:00:00:00:00:00"] * 2:
        flow.ethernet.source, flow.ethernet.destination = macs
    source, destination, protocol = int(row["source_port"]), int(row["destination_port"]), int(row["protocol"])
    if protocol == 6:
        flow.l4.TCP.source_port, flow.l4.TCP.destination_port = source, destination
        flow.l4.TCP.flags.SetInParent()
        for bit, name in enumerate(FLAGS):
            if row["tcp_flags"] >> bit & 1:
                setattr(flow.l4.TCP.flags, name, True)
    elif protocol in (17, 132):
        part = flow.l4.UDP if protocol == 17 else flow.l4.SCTP
        part.SetInParent()
        part.source_port, part.destination_port = source, destination
    elif protocol == 2:
        flow.l4.IGMP.SetInParent()
    elif protocol in (1, 58):
        icmp = flow.l4.ICMPv4 if protocol == 1 else flow.l4.ICMPv6
        icmp.SetInParent()
        icmp.type, icmp.code = source, destination
    icmp_only = (source, destination) if protocol in (1, 58) else (0, 0)
    flow.Summary = summary(protocol, int(row["tcp_flags"]), *icmp_only)


def _fill_ends(node: Node, flow: pb.Flow, row: np.void) -> None:
    for side in ("source", "destination"):
        end, out = node.tables.ends.rows[row[f"{side}_end"]], getattr(flow, side)
        out.SetInParent()
        out.ID, out.identity, out.namespace, out.pod_name = end.endpoint, end.identity, end.namespace, end.pod
        out.labels.extend(end.labels)
        out.cluster_name = end.cluster
        out.workloads.extend(pb.Workload(name=workload.name, kind=workload.kind) for workload in end.workloads)
        if row["ifindex"] == 0x10000 + row[f"{side}_endpoint"]:
            flow.interface.name = end.interface
    flow.interface.index = int(row["ifindex"])
    if row["ifindex"] == 0:
        flow.ClearField("interface")
    elif row["ifindex"] < 0x10000:
        flow.interface.name = node.tables.interfaces.name(int(row["ifindex"]))


def _fill_policies(node: Node, flow: pb.Flow, row: np.void) -> None:
    for side, direction in (("ingress", pb.INGRESS), ("egress", pb.EGRESS)):
        by_policy = int(row["reason"]) in DENIALS or row["kind"] == EventType.L7
        denied = row["verdict"] == Verdict.AUDIT or (row["verdict"] == Verdict.DROPPED and by_policy)
        listed = getattr(flow, f"{side}_{'denied' if denied and row['direction'] == direction else 'allowed'}_by")
        objects: dict[tuple[str, str], list[Rule]] = {}
        for one in node.tables.rules.rules(int(row[f"rule_set_{side}"])):
            objects.setdefault((one.kind, one.name), []).append(one)
        for (kind, name), rules in objects.items():
            one = rules[0]
            pairs = {"derived-from": kind, "name": name, "namespace": one.namespace, "uid": one.uid}
            labels = [f"k8s:io.cilium.k8s.policy.{key}={value}" for key, value in pairs.items()]
            labels += [f"ciliate:rule={rule.place}" for rule in rules]
            listed.add(
                name=name, namespace=one.namespace, labels=labels if kind else [], revision=one.generation,
                kind=kind or "Default",
            )  # fmt: skip


def test_drops_of_our_own_reasons_keep_their_numbers() -> None:
    node = Node()
    flows = node.flows(record(kind=EventKind.DROP, reason=DropReason.PLUGIN, direction=2))
    (flow,) = node.messages(flows)
    assert (flow.drop_reason, flow.drop_reason_desc, flow.event_type.sub_type) == (244, 244, 244)
