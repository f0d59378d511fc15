"""Records become flows as a user of Cilium expects; whole columns as one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ciliate.model.base import unpack_address
from ciliate.model.event import EventKind, EventVerdict, MatchType, Point, TraceReason
from ciliate.model.policy import Direction
from ciliate.model.reasons import DropReason
from ciliate_hubble.columns import EventType, Reply, TrafficDirection, Verdict
from ciliate_hubble.ingest.meaning import DENIALS, EGRESS, INGRESS, Case, flows_of, meaning

from tests.unit.hubble.node import (
    ALLOW_ALL,
    BLOCK,
    CLOCK,
    DENY_EGRESS,
    DENY_INGRESS,
    WEB,
    WEB_DEFAULT,
    Node,
    random_records,
    record,
)

BOTH = EventVerdict.EGRESS | EventVerdict.INGRESS


def shown(node: Node, records: Any) -> list[tuple[int, int, int, int]]:
    """Type, verdict, direction, reply of each flow."""
    flows = node.flows(records)
    return list(zip(*(flows[name].tolist() for name in ("kind", "verdict", "direction", "reply")), strict=True))


def test_a_packet_judged_in_both_directions_is_two_policy_verdicts() -> None:
    node = Node()
    flows = node.flows(
        record(
            rule_set_egress=ALLOW_ALL, rule_set_ingress=WEB, match_egress=MatchType.ALL, match_ingress=MatchType.L3_L4
        )
    )
    assert flows["kind"].tolist() == [EventType.POLICY_VERDICT] * 2
    assert flows["direction"].tolist() == [TrafficDirection.EGRESS, TrafficDirection.INGRESS]
    assert flows["verdict"].tolist() == [Verdict.FORWARDED] * 2
    assert flows["reply"].tolist() == [Reply.NO] * 2
    assert flows["match"].tolist() == [MatchType.ALL, MatchType.L3_L4]
    assert flows["rule_set_egress"].tolist() == [ALLOW_ALL, 0]
    assert flows["rule_set_ingress"].tolist() == [0, WEB]
    assert flows["sequence"].tolist() == [0, 1]


def test_a_packet_to_or_from_elsewhere_is_one_policy_verdict() -> None:
    node = Node()
    assert shown(node, record(1, 0)) == [
        (EventType.POLICY_VERDICT, Verdict.FORWARDED, TrafficDirection.EGRESS, Reply.NO)
    ]
    assert shown(node, record(9, 1)) == [
        (EventType.POLICY_VERDICT, Verdict.FORWARDED, TrafficDirection.INGRESS, Reply.NO)
    ]


def test_a_packet_that_no_policy_judged_is_a_trace() -> None:
    loopback = record(1, 1, verdicts=0)
    assert shown(Node(), loopback) == [(EventType.TRACE, Verdict.FORWARDED, TrafficDirection.INGRESS, Reply.NO)]


def test_a_redirected_packet_says_so_in_its_last_verdict() -> None:
    node = Node()
    assert [flow[1] for flow in shown(node, record(proxy_port=9000))] == [Verdict.FORWARDED, Verdict.REDIRECTED]
    assert [flow[1] for flow in shown(node, record(1, 0, proxy_port=9000))] == [Verdict.REDIRECTED]


def test_a_denied_packet_is_a_denied_verdict_and_a_drop() -> None:
    denied = record(
        kind=EventKind.DROP, reason=DropReason.POLICY_DENIED, direction=Direction.INGRESS, verdicts=BOTH,
        point=Point.FROM_ENDPOINT, rule_set_egress=ALLOW_ALL,
    )  # fmt: skip
    node = Node()
    flows = node.flows(denied)
    assert shown(node, denied) == [
        (EventType.POLICY_VERDICT, Verdict.DROPPED, TrafficDirection.INGRESS, Reply.ABSENT),
        (EventType.DROP, Verdict.DROPPED, TrafficDirection.INGRESS, Reply.ABSENT),
    ]
    assert flows["reason"].tolist() == [DropReason.POLICY_DENIED] * 2
    assert flows["rule_set_ingress"].tolist() == [WEB_DEFAULT] * 2, "what switched default deny on for that pod"
    assert flows["rule_set_egress"].tolist() == [0, ALLOW_ALL]


@pytest.mark.parametrize(("direction", "named"), [(Direction.INGRESS, DENY_INGRESS), (Direction.EGRESS, DENY_EGRESS)])
def test_a_default_of_which_nobody_says_more_has_a_name_all_the_same(direction: Direction, named: int) -> None:
    denied = record(1, 2, kind=EventKind.DROP, reason=DropReason.POLICY_DENIED, direction=direction, verdicts=BOTH)
    flows = Node().flows(denied)
    assert flows[f"rule_set_{direction.name.lower()}"].tolist() == [named] * 2


def test_a_drop_for_another_reason_is_one_flow_of_the_direction_that_is_known() -> None:
    node = Node()
    invalid: dict[str, Any] = {"kind": EventKind.DROP, "reason": DropReason.INVALID_SOURCE_IP, "verdicts": 0}
    from_pod = record(direction=2, point=Point.FROM_ENDPOINT, **invalid)
    from_host = record(9, 1, direction=2, point=Point.FROM_HOST, **invalid)
    assert shown(node, from_pod) == [(EventType.DROP, Verdict.DROPPED, TrafficDirection.EGRESS, Reply.ABSENT)]
    assert shown(node, from_host) == [(EventType.DROP, Verdict.DROPPED, TrafficDirection.UNKNOWN, Reply.ABSENT)]


@pytest.mark.parametrize(
    ("source", "destination", "point", "reply", "direction"),
    [
        (2, 1, Point.TO_ENDPOINT, False, TrafficDirection.INGRESS),  # seen where it arrives
        (1, 2, Point.TO_ENDPOINT, True, TrafficDirection.EGRESS),  # the answer arrives where the flow began
        (1, 0, Point.TO_STACK, False, TrafficDirection.EGRESS),
        (1, 9, Point.TO_STACK, True, TrafficDirection.INGRESS),
        (9, 1, Point.TO_ENDPOINT, True, TrafficDirection.EGRESS),
    ],
)
def test_a_trace_has_the_direction_of_its_flow(
    source: int, destination: int, point: Point, reply: bool, direction: TrafficDirection
) -> None:
    verdicts = EventVerdict.REPLY if reply else 0
    trace = record(source, destination, kind=EventKind.TRACE, point=point, verdicts=verdicts)
    assert shown(Node(), trace) == [(EventType.TRACE, Verdict.FORWARDED, direction, Reply.YES if reply else Reply.NO)]


def test_an_audited_packet_says_which_verdict_would_have_denied() -> None:
    node = Node()
    audited = BOTH | EventVerdict.AUDITED
    by_default = node.flows(record(verdicts=audited, rule_set_egress=ALLOW_ALL))
    assert by_default["verdict"].tolist() == [Verdict.FORWARDED, Verdict.AUDIT]
    assert by_default["rule_set_ingress"].tolist() == [0, WEB_DEFAULT]
    by_rule = node.flows(record(verdicts=audited, rule_set_egress=BLOCK, rule_set_ingress=WEB))
    assert by_rule["verdict"].tolist() == [Verdict.AUDIT, Verdict.FORWARDED]


def test_socket_records_are_traced_before_and_translated_after() -> None:
    records = np.concatenate([record(kind=EventKind.SOCK, point=point, verdicts=0) for point in (1, 2, 3, 4)])
    expected = [Verdict.TRACED, Verdict.TRANSLATED, Verdict.TRACED, Verdict.TRANSLATED]
    assert [flow[1] for flow in shown(Node(), records)] == expected


def test_an_address_before_translation_is_the_flows_source() -> None:
    node = Node()
    virtual = np.frombuffer(bytes(10) + b"\xff\xff" + bytes([10, 96, 0, 1]), np.uint8)
    answer = record(1, 2, kind=EventKind.TRACE, verdicts=EventVerdict.REPLY)
    answer["original_source"], answer["source"] = answer["source"].copy(), virtual
    answer["original_destination"] = answer["destination"]
    (flow,) = node.messages(node.flows(answer))
    assert (flow.IP.source, flow.IP.source_xlated, flow.source.pod_name) == ("10.0.0.1", "10.96.0.1", "web-1")
    request = record(2, 1)
    request["original_source"], request["original_destination"] = request["source"], virtual
    flow = node.messages(node.flows(request))[0]
    assert (flow.IP.source, flow.IP.destination, flow.IP.source_xlated) == ("10.0.0.2", "10.0.0.1", "")


@pytest.mark.parametrize("seed", range(4))
def test_columns_are_what_records_are_one_by_one(seed: int) -> None:
    node = Node()
    records = random_records(1500, seed)
    flows = node.flows(records)
    expected = [one for record in records for one in slowly(node, record)]
    assert len(flows) == len(expected)
    for name in expected[0]:
        found = flows[name].tolist()
        wrong = [i for i, one in enumerate(expected) if one[name] != found[i]]
        assert not wrong, f"{name} of flow {wrong[0]}: {found[wrong[0]]}, not {expected[wrong[0]][name]}"


def slowly(node: Node, record: np.void) -> list[dict[str, Any]]:
    """The flows of one record, from what the modules' docstrings say."""
    denied = int(record["kind"]) == EventKind.DROP and int(record["reason"]) in DENIALS and int(record["direction"]) < 2
    judged = int(record["verdicts"])
    case = Case(
        kind=int(record["kind"]), denied=denied, egress=bool(judged & 1), ingress=bool(judged & 2),
        reply=bool(judged & 16), direction=int(record["direction"]), near=False, proxied=bool(record["proxy_port"]),
        second=False,
    )  # fmt: skip
    case = case._replace(
        near=record["point"] == (Point.FROM_ENDPOINT if case.kind == EventKind.DROP else Point.TO_ENDPOINT)
    )
    return [_flow(node, record, case._replace(second=number == 1)) for number in range(flows_of(case))]


def _flow(node: Node, record: np.void, case: Case) -> dict[str, Any]:
    means = meaning(case)
    sets = {"egress": int(record["rule_set_egress"]), "ingress": int(record["rule_set_ingress"])}
    audited = bool(record["verdicts"] & EventVerdict.AUDITED)
    for side, bit, own in (("egress", EGRESS, "source"), ("ingress", INGRESS, "destination")):
        denies = record["reason"] == DropReason.POLICY_DENIED and means.direction.name.lower() == side
        if sets[side] == 0 and record["verdicts"] & bit and (audited or denies):
            default = int(node.names.defaults[Direction[side.upper()]][record[f"{own}_endpoint"]])
            sets[side] = default or (DENY_EGRESS if side == "egress" else DENY_INGRESS)
        if not means.rules & bit:
            sets[side] = 0
    verdict = means.verdict
    if audited and means.kind == EventType.POLICY_VERDICT and node.tables.rules.denies(sum(sets.values())):
        verdict = Verdict.AUDIT
    if means.kind == EventType.SOCK and record["point"] in (2, 4):
        verdict = Verdict.TRANSLATED
    flow = {
        "time": int(record["time"]) + CLOCK, "kind": means.kind, "verdict": verdict, "direction": means.direction,
        "reply": means.reply, "rule_set_egress": sets["egress"], "rule_set_ingress": sets["ingress"],
        "match": int({EGRESS: record["match_egress"], INGRESS: record["match_ingress"], 0: 0}[means.match]),
        "family": {0x0800: 4, 0x86DD: 6}[int(record["ether_type"])],
    }  # fmt: skip
    if not record["source"].any() and not record["destination"].any():
        flow["family"] = 0
    for side in ("source", "destination"):
        endpoint, identity = int(record[f"{side}_endpoint"]), int(record[f"{side}_identity"])
        needs_address = not endpoint and (identity == 0 or 256 <= identity < 65536)
        end, _ = node.names.resolve(endpoint, identity, record[side].tobytes() if needs_address else b"")
        flow[f"{side}_end"] = node.tables.ends.index(end)
        flow[f"{side}_identity"] = end.identity
    return flow


def test_what_an_unknown_kind_or_state_is_does_no_harm() -> None:
    node = Node()
    strange = record(kind=99, ct_state=TraceReason.UNKNOWN, direction=250, point=200)
    (flow,) = node.messages(node.flows(strange))
    assert flow.event_type.type == EventType.TRACE
    assert str(unpack_address(strange["source"][0].tobytes())) == flow.IP.source
