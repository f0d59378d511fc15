"""Room: full tables, evictions, collection, and events that are lost."""

from __future__ import annotations

import numpy as np
from ciliate.model import conntrack, event
from ciliate.model.conntrack import CollectTable, ConntrackState
from ciliate.model.datapath import ticks
from ciliate.model.policy import Direction
from ciliate.model.reasons import DropReason
from scapy.layers.l2 import Ether

from tests.bpf.datapath.families import Family
from tests.bpf.datapath.node import CONNTRACK_ENTRIES, PODS, REDIRECT, Node
from tests.bpf.datapath.test_flows import connect

A, B = PODS[:2]


def fill(node: Node, name: str, count: int, seen: int) -> None:
    """Entries of flows that nobody has."""
    keys = np.zeros(count, conntrack.CONNTRACK_KEY)
    keys["a"][:, :4] = np.arange(count, dtype="<u4").view(np.uint8).reshape(-1, 4)
    keys["protocol"] = 17
    entries = np.zeros(count, conntrack.CONNTRACK_ENTRY)
    entries["seen"] = seen
    node.map(name).update_batch(keys, entries)


def test_a_full_table_takes_no_new_flow_and_keeps_the_old(node: Node, family: Family) -> None:
    connect(node, family)
    fill(node, "conntrack", CONNTRACK_ENTRIES - 1, node.now())
    node.send(A, family.tcp(A, B, 40001))
    assert node.send(B, family.tcp(B, A, 80, 40001, "SA")).reason == DropReason.CONNTRACK_FULL
    node.send(A, family.udp(A, B))
    assert node.send(B, family.udp(B, A, 53, 40000)).reason == DropReason.CONNTRACK_FULL
    assert node.send(A, family.tcp(A, B, flags="A")).to == B.id
    assert node.send(B, family.tcp(B, A, 80, 40000, "A")).to == A.id


def test_a_flood_of_unanswered_flows_leaves_established_ones_alone(node: Node, family: Family) -> None:
    connect(node, family)
    node.send(A, family.udp(A, B))
    node.send(B, family.udp(B, A, 53, 40000))
    fill(node, "conntrack_new", 20_000, node.now())
    assert node.send(B, family.udp(B, A, 53, 40000)).to == A.id
    assert node.send(B, family.tcp(B, A, 80, 40000, "A")).to == A.id
    assert len(node.flows()) == 2


def test_a_flood_of_syns_takes_no_room(node: Node, family: Family) -> None:
    for port in range(1000, 1100):
        node.send(A, family.tcp(A, B, port))
    assert not node.flows() and not node.flows("conntrack_new")


def test_what_is_over_is_collected_and_nothing_else(node: Node, family: Family) -> None:
    connect(node, family)
    fill(node, "conntrack", 100, 0)
    keys, _ = node.map("conntrack").items()
    result = node.collect(CollectTable.MAIN, keys)
    assert (result["deleted"], result["kept"]) == (100, 1)
    assert len(node.flows()) == 1
    again = node.collect(CollectTable.MAIN, keys)
    assert (again["deleted"], again["kept"]) == (0, 101)


def test_timeouts_follow_state_and_protocol(node: Node, family: Family) -> None:
    connect(node, family)
    ((key, _),) = node.flows()
    for state, alive, over in (
        (ConntrackState.ESTABLISHED, 7000, 9000),
        (ConntrackState.NEW, 50, 70),
        (ConntrackState.CLOSING, 5, 15),
    ):
        for age, deleted in ((alive, 0), (over, 1)):
            connect(node, family)
            node.change_flow(state=state, seen=node.now() - ticks(age))
            assert node.collect(CollectTable.MAIN, np.array([key]))["deleted"] == deleted, (state, age)


def test_events_that_find_no_room_are_counted(node: Node, family: Family) -> None:
    lost, forwarded = node.ring.lost() or 0, node.counted(0, Direction.EGRESS)
    syn = bytes(Ether(src=A.mac, dst=A.host_mac) / family.tcp(A, B))
    program, context = node.programs.program("from_pod"), node.context(A.ifindex)
    room = node.map("events").spec.max_entries // (event.EVENT.itemsize + 8)
    for _ in range(room + 100):
        assert program.test_run(syn, context).retval == REDIRECT
    assert 90 <= (node.ring.lost() or 0) - lost <= 110
    assert node.counted(0, Direction.EGRESS) == forwarded + room + 100
    assert room - 10 <= len(node.read_events()) <= room
