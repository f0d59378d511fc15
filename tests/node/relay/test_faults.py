"""What breaks: agents, servers, the relay, the network; and a reader that follows goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from ciliate_hubble.api.observer_pb2 import GetFlowsRequest
from ciliate_hubble.api.observer_pb2_grpc import ObserverStub

from tests.node.labs import Lab, until
from tests.node.relay.conftest import MakeReader
from tests.node.relay.traffic import Pair


@pytest.fixture(autouse=True)
def ready(cluster: Lab) -> Iterator[None]:
    """Both nodes are connected before and after."""
    yield
    until(lambda: cluster.status()["ready"], 40, "the lab's readiness")


@contextmanager
def cut(cluster: Lab, node: str) -> Iterator[None]:
    """A node whose network is dead for the time of a block."""
    command = ["ip", "-n", cluster.place.outside, "link", "set", node]
    subprocess.run([*command, "down"], check=True)
    try:
        yield
    finally:
        subprocess.run([*command, "up"], check=True)


def test_a_follower_sees_the_flows_of_both_nodes_in_order(pairs: list[Pair], read: MakeReader) -> None:
    reader = read()
    reader.has({port for _ in range(10) for pair in pairs for port in pair.send(3)})
    assert {node for state, node, _ in reader.states} == {"node1", "node2"}
    assert reader.times == sorted(reader.times)


def test_a_killed_agent_is_not_noticed_by_a_reader_but_for_the_flows_that_wait(
    cluster: Lab, pairs: list[Pair], read: MakeReader
) -> None:
    reader = read()
    reader.has(pairs[0].send(5))
    cluster.signal("agent", signal.SIGKILL)
    while_away = pairs[0].send(50)
    reader.has(while_away | pairs[1].send(5), 40)
    until(lambda: cluster.process("agent")["ready"], 30, "the agent")
    reader.has(pairs[0].send(5))
    assert {state for state, _, _ in reader.states} == {"NODE_CONNECTED"}
    assert len(reader.uuids) == len(set(reader.uuids))


def test_a_killed_server_is_told_and_its_flows_come_again(cluster: Lab, pairs: list[Pair], read: MakeReader) -> None:
    reader = read()
    reader.has(pairs[0].send(5) | pairs[1].send(5))
    cluster.signal("hubble", signal.SIGKILL)
    reader.told("NODE_UNAVAILABLE", "node1")
    reader.has(pairs[1].send(5), 5)
    reader.told("NODE_CONNECTED", "node1", times=2)
    reader.has(pairs[0].send(5))
    assert len(reader.uuids) == len(set(reader.uuids))
    assert not reader.breaks


def test_a_reader_of_a_killed_relay_comes_back_and_has_missed_nothing(
    cluster: Lab, pairs: list[Pair], read: MakeReader
) -> None:
    reader = read()
    reader.has(pairs[0].send(5) | pairs[1].send(5))
    cluster.signal("relay", signal.SIGKILL)
    while_away = pairs[0].send(20) | pairs[1].send(20)
    until(lambda: reader.breaks == 1, what="the broken stream")
    reader.has(while_away | pairs[0].send(5))
    assert len(reader.uuids) == len(set(reader.uuids))


def test_a_server_that_hangs_holds_nobody_up_and_is_told_in_seconds(
    cluster: Lab, pairs: list[Pair], read: MakeReader
) -> None:
    reader = read()
    reader.has(pairs[0].send(5) | pairs[1].send(5))
    server = cluster.status()["relay"]["server"]
    hung = cluster.signal("hubble", signal.SIGSTOP)
    try:
        began = time.monotonic()
        reader.has(pairs[1].send(5), 5)
        told = reader.told("NODE_UNAVAILABLE", "node1")
        assert told - began < 12
        with grpc.insecure_channel(server) as channel:
            stub = ObserverStub(channel)
            found = list(stub.GetFlows(GetFlowsRequest(number=5), timeout=10))
        assert {one.node_name for one in found if one.HasField("flow")} == {"node2"}
        while_hung = pairs[0].send(5)
    finally:
        os.kill(hung, signal.SIGCONT)
    reader.told("NODE_CONNECTED", "node1", times=2)
    reader.has(while_hung)
    assert len(reader.uuids) == len(set(reader.uuids))


def test_a_node_that_is_cut_off_comes_back_with_what_happened_meanwhile(
    cluster: Lab, pairs: list[Pair], read: MakeReader
) -> None:
    reader = read()
    reader.has(pairs[0].send(5) | pairs[1].send(5))
    with cut(cluster, "node2"):
        while_away = pairs[1].send(20)
        reader.told("NODE_UNAVAILABLE", "node2")
        reader.has(pairs[0].send(5), 5)
        reasons = cluster.status()["reasons"]
        assert any(reason.startswith("relay: node2 does not answer") for reason in reasons), reasons
    reader.told("NODE_CONNECTED", "node2", times=2)
    reader.has(while_away)
    assert len(reader.uuids) == len(set(reader.uuids))


def test_a_node_whose_object_is_deleted_is_gone_until_it_is_there_again(
    cluster: Lab, pairs: list[Pair], read: MakeReader
) -> None:
    reader = read()
    reader.has(pairs[1].send(5))
    cluster.ciliate("delete", "ciliumnode", "node2")
    reader.told("NODE_GONE", "node2")
    reader.told("NODE_CONNECTED", "node2", times=2)
    reader.has(pairs[1].send(5))
    assert len(reader.uuids) == len(set(reader.uuids))
