"""How many flows an endpoint may have: what counts for whom, and what is dropped at the limit."""

from __future__ import annotations

import numpy as np
import pytest
from ciliate.model.conntrack import CollectTable, ConntrackState
from ciliate.model.datapath import Switch, ticks
from ciliate.model.policy import Direction
from ciliate.model.reasons import DropReason
from ciliate_cni.conntrack import Collector
from ciliate_cni.flowlimits import FlowLimits

from tests.bpf.datapath.families import Family
from tests.bpf.datapath.node import PODS, Node
from tests.bpf.datapath.test_carry import move_to_old
from tests.bpf.datapath.test_flows import connect

A, B, C = PODS[:3]


def counts(node: Node) -> list[int]:
    """Flows of A, B and C."""
    return [int(node.counts[pod.id]["flows"]) for pod in (A, B, C)]


def limit(node: Node, flows: int) -> None:
    """What each endpoint may have."""
    node.counts["limit"][:] = flows


def collector(node: Node) -> Collector:
    """The agent's collector, on the test's maps."""
    tables = {name: node.map(name) for name in ("conntrack", "conntrack_new")}
    keys = node.map("collect_keys").mmap(writable=True)
    return Collector(node.programs, tables, keys, node.endpoints, FlowLimits(node.counts, 100, 0.5))


def test_a_flow_counts_for_the_endpoint_that_began_it(node: Node, family: Family) -> None:
    connect(node, family)
    connect(node, family, 40001)
    assert counts(node) == [2, 0, 0]
    node.send(A, family.udp(A, B))
    assert counts(node) == [2, 0, 0], "what nobody has answered takes no room in the main table"
    node.send(B, family.udp(B, A, 53, 40000))
    assert counts(node) == [3, 0, 0]
    node.send(C, family.echo(C, A))
    node.send(A, family.echo(A, C, reply=True))
    assert counts(node) == [3, 0, 1]


def test_a_flow_from_beyond_the_host_counts_for_whom_it_reaches(node: Node, family: Family) -> None:
    node.send_from_host(family.tcp(family.world, B))
    node.send(B, family.tcp(B, family.world, 80, 40000, "SA"))
    assert counts(node) == [0, 1, 0]
    node.send(A, family.tcp(A, family.world))
    node.send_from_host(family.tcp(family.world, A, 80, 40000, "SA"))
    assert counts(node) == [1, 1, 0]


def test_at_the_limit_new_flows_are_dropped_by_name_and_the_others_go_on(node: Node, family: Family) -> None:
    connect(node, family)
    connect(node, family, 40001)
    limit(node, 2)
    for packet in (family.tcp(A, B, 40002), family.udp(A, B), family.echo(A, B), family.tcp(A, B, 40003, flags="A")):
        outcome = node.send(A, packet)
        assert (outcome.to, outcome.reason) == (None, DropReason.CONNTRACK_LIMIT)
        assert outcome.event["direction"] == Direction.EGRESS
        assert outcome.event["source_endpoint"] == A.id
    assert not node.flows("conntrack_new")
    for port in (40000, 40001):
        assert node.send(A, family.tcp(A, B, port, flags="PA")).to == B.id
        assert node.send(B, family.tcp(B, A, 80, port, "PA")).to == A.id
    assert node.send(C, family.tcp(C, B)).to == B.id
    assert node.send(B, family.tcp(B, C, 80, 40000, "SA")).to == C.id
    assert node.send(C, family.tcp(C, A)).to == A.id, "others still reach it"
    assert node.send(B, family.tcp(B, A)).to == A.id


def test_at_the_limit_nobody_from_beyond_the_host_begins_a_flow_with_it(node: Node, family: Family) -> None:
    connect(node, family)
    limit(node, 1)
    assert node.send_from_host(family.tcp(family.world, B)).to == B.id
    outcome = node.send_from_host(family.tcp(family.world, A))
    assert outcome.reason == DropReason.CONNTRACK_LIMIT
    assert outcome.event["direction"] == Direction.INGRESS


def test_what_was_sent_before_the_limit_was_reached_is_not_answered_after(node: Node, family: Family) -> None:
    node.send(A, family.tcp(A, B))
    node.send(A, family.udp(A, B))
    connect(node, family, 40001)
    limit(node, 1)
    for answer in (family.tcp(B, A, 80, 40000, "SA"), family.udp(B, A, 53, 40000)):
        outcome = node.send(B, answer)
        assert (outcome.to, outcome.reason) == (None, DropReason.CONNTRACK_LIMIT)
        assert outcome.event["direction"] == Direction.EGRESS, "the one that began it is at its limit"
    limit(node, 2)
    assert node.send(B, family.udp(B, A, 53, 40000)).to == A.id


def test_a_closed_connection_s_port_may_be_used_again_at_the_limit(node: Node, family: Family) -> None:
    connect(node, family)
    node.send(A, family.tcp(A, B, flags="R"))
    assert node.flow()["state"] == ConntrackState.CLOSING
    limit(node, 1)
    connect(node, family)
    assert counts(node) == [1, 0, 0]


def test_a_flow_in_the_place_of_one_that_is_over_counts_once(node: Node, family: Family) -> None:
    connect(node, family)
    node.change_flow(seen=node.now() - ticks(9000))
    connect(node, family)
    assert counts(node) == [1, 0, 0]
    node.change_flow(seen=node.now() - ticks(9000))
    node.send(B, family.tcp(B, A, 80, 40000))
    node.send(A, family.tcp(A, B, flags="SA"))
    assert counts(node) == [0, 1, 0], "now it is the other end's"


def test_what_is_collected_counts_no_more(node: Node, family: Family) -> None:
    connect(node, family)
    connect(node, family, 40001)
    keys, entries = node.map("conntrack").items()
    entries = entries.copy()
    entries["seen"][0] = node.now() - ticks(9000)
    node.map("conntrack").update_batch(keys, entries)
    assert node.collect(CollectTable.MAIN, keys)["deleted"] == 1
    assert counts(node) == [1, 0, 0]


def test_flows_carried_over_from_another_set_are_counted_and_not_refused(node: Node, family: Family) -> None:
    connect(node, family)
    move_to_old(node)
    node.counts["flows"][A.id] = 5
    limit(node, 1)
    node.switches[0] |= Switch.CARRY
    assert node.send(B, family.tcp(B, A, 80, 40000, "A")).to == A.id
    assert counts(node) == [6, 0, 0]


def test_flows_of_an_endpoint_that_is_gone_are_collected(node: Node, family: Family) -> None:
    connect(node, family)
    node.send(C, family.udp(C, B))
    node.send_from_host(family.udp(family.world, C))
    node.endpoints[A.id]["flags"] = 0
    done = collector(node).collect()
    assert (done.deleted, done.alive) == ({"conntrack": 1, "conntrack_new": 0}, {"conntrack": 0, "conntrack_new": 2})
    node.add(C, generation=2)
    assert collector(node).collect().deleted == {"conntrack": 0, "conntrack_new": 2}
    assert counts(node) == [0, 0, 0]


@pytest.mark.parametrize("wrong", [-7, 0, 1000])
def test_a_wrong_count_is_put_right_when_the_table_is_read(node: Node, family: Family, wrong: int) -> None:
    connect(node, family)
    node.send_from_host(family.tcp(family.world, B))
    node.send(B, family.tcp(B, family.world, 80, 40000, "SA"))
    node.counts["flows"][A.id] += wrong
    assert collector(node).collect().recounted == bool(wrong)
    assert counts(node) == [1, 1, 0]


def test_a_count_below_zero_is_no_reason_to_refuse(node: Node, family: Family) -> None:
    node.counts["flows"][A.id] = -1
    limit(node, 1)
    connect(node, family)
    assert counts(node) == [0, 0, 0]


def test_without_a_limit_nothing_is_refused(node: Node, family: Family) -> None:
    node.counts["flows"][A.id] = np.iinfo(np.int32).max - 10
    connect(node, family)
