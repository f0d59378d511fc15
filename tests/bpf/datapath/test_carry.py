"""While program sets are exchanged: flows of the map that conntrack gave way to are found, and carried over."""

from __future__ import annotations

from ciliate.model.datapath import Switch
from ciliate_cni import datapath

from tests.bpf.datapath.families import Family
from tests.bpf.datapath.node import DENY_ALL, PODS, Node
from tests.bpf.datapath.test_flows import connect
from tests.bpf.datapath.test_icmp import unreachable

A, B, C = PODS[:3]


def move_to_old(node: Node) -> None:
    """The one flow is in the old map only, as after an exchange."""
    ((key, entry),) = node.flows()
    old = node.map("conntrack_old")
    keys, _ = old.items()
    old.delete_batch(keys)
    old.update(key, entry)
    node.map("conntrack").delete(key)


def test_an_answer_is_known_by_the_old_map_and_its_flow_is_carried_over(node: Node, family: Family) -> None:
    connect(node, family)
    node.apply(B, egress=DENY_ALL)  # B may answer, and nothing else
    move_to_old(node)
    node.switches[0] |= Switch.CARRY
    assert node.send(B, family.tcp(B, A, 80, 40000, "A")).to == A.id
    assert node.flow()["packets"][1] >= 1
    assert len(node.flows("conntrack_old")) == 1  # the old set may still use it
    node.switches[0] = 0
    assert node.send(B, family.tcp(B, A, 80, 40000, "A")).to == A.id


def test_without_an_exchange_nobody_looks_there(node: Node, family: Family) -> None:
    connect(node, family)
    node.apply(B, egress=DENY_ALL)
    move_to_old(node)
    assert node.send(B, family.tcp(B, A, 80, 40000, "A")).to is None


def test_what_was_carried_over_is_judged_by_the_policy_of_now(node: Node, family: Family) -> None:
    connect(node, family)
    move_to_old(node)
    node.switches[0] |= Switch.CARRY
    node.apply(A, egress=DENY_ALL)
    assert node.send(A, family.tcp(A, B, flags="A")).to is None


def test_icmp_errors_find_their_flow_in_the_old_map(node: Node, family: Family) -> None:
    connect(node, family)
    move_to_old(node)
    node.switches[0] |= Switch.CARRY
    node.apply(B, egress=DENY_ALL)
    assert node.send(B, unreachable(family, B, A, family.tcp(A, B, flags="A"))).to == A.id
    assert len(node.flows()) == 1


def test_the_switch_is_a_byte_that_programs_do_not_touch(node: Node) -> None:
    node.switches[0] = int(Switch.SPLIT | Switch.MAPPED)
    datapath.read_through(node.registry, True)
    assert node.switches[0] == Switch.SPLIT | Switch.MAPPED | Switch.CARRY
    datapath.read_through(node.registry, False)
    assert node.switches[0] == Switch.SPLIT | Switch.MAPPED
