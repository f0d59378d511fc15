"""Readers that never read, readers by the hundred, and a flood: nobody else is hurt, and losses are told."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc
import pytest
from ciliate.api.client import Client
from ciliate_hubble.api.flow_pb2 import FlowFilter
from ciliate_hubble.api.observer_pb2 import GetFlowsRequest, ServerStatusRequest, ServerStatusResponse
from ciliate_hubble.api.observer_pb2_grpc import ObserverStub

from tests.node.hubble.cluster import Cluster
from tests.node.hubble.load import Stream, flood, resident, streams
from tests.node.hubble.program import Flow, Hubble
from tests.node.labs import until

READERS = 200
MEGABYTE = 1 << 20
GROWTH = 64 * MEGABYTE
"""What a process may come to hold more under load: queues of the readers, which are bounded."""


@pytest.fixture(params=["node", "relay"])
def server(request: pytest.FixtureRequest, cluster: Cluster) -> tuple[str, int]:
    """Where readers ask, and the process that answers: a node's own server, and the relay."""
    status = cluster.lab.status()
    if request.param == "relay":
        return status["relay"]["server"], cluster.lab.process("relay")["pid"]
    node = next(node for node in status["nodes"] if node["name"] == "node1")
    return node["hubble"]["server"], cluster.lab.process("hubble")["pid"]


def _status(server: str) -> ServerStatusResponse:
    with grpc.insecure_channel(server.replace("unix://", "unix:")) as channel:
        status: ServerStatusResponse = ObserverStub(channel).ServerStatus(ServerStatusRequest(), timeout=5)
        return status


def _seen(cluster: Cluster) -> int:
    with Client(cluster.lab.place.node(1).socket("hubble")) as client:
        return int(client.get("/hubble")["seen"])


def _quiet(cluster: Cluster) -> Callable[[], bool]:
    """Whether no more flows come."""
    last = [-1]

    def quiet() -> bool:
        before, last[0] = last[0], _seen(cluster)
        return before == last[0]

    return quiet


def test_two_hundred_readers_each_get_the_flows_of_their_own_filter(
    cluster: Cluster, server: tuple[str, int], flows: list[Flow]
) -> None:
    ports = range(20000, 20000 + READERS)
    requests = [
        GetFlowsRequest(
            follow=True, whitelist=[FlowFilter(destination_port=[str(port)], protocol=["udp"], verdict=["DROPPED"])]
        )
        for port in ports
    ]
    before = resident(server[1])
    with streams(server[0], requests) as readers:
        until(lambda: _readers(cluster) >= READERS, 30, "200 readers")

        def served() -> bool:
            flood(cluster.web, cluster.db.ipv4, ports, 0)
            for port in ports:
                cluster.web.connects(cluster.db.ipv4, port, "udp", 0)
            return all(reader.flows for reader in readers)

        until(served, 60, "a flow for each")
        for port, reader in zip(ports, readers, strict=True):
            assert {answer.flow.l4.UDP.destination_port for answer in reader.flows} == {port}
            assert not reader.ended
    assert resident(server[1]) - before < GROWTH
    until(lambda: _readers(cluster) == 0, 30, "the end of all readers")


def _readers(cluster: Cluster) -> int:
    with Client(cluster.lab.place.node(1).socket("hubble")) as client:
        return int(client.get("/hubble")["readers"])


def test_a_reader_that_never_reads_costs_a_bounded_amount_and_others_go_on(
    cluster: Cluster, server: tuple[str, int], flows: list[Flow]
) -> None:
    everything = GetFlowsRequest(follow=True)
    wanted = GetFlowsRequest(follow=True, whitelist=[FlowFilter(destination_port=["5432"])])
    before = resident(server[1])
    with grpc.insecure_channel(server[0].replace("unix://", "unix:")) as channel:
        idle = [Stream(channel, everything, read=False) for _ in range(3)]
        with streams(server[0], [wanted], channels=1) as (reader,):
            until(lambda: _readers(cluster) >= 2, 10, "readers")
            flood(cluster.web, cluster.db.ipv4, range(30000, 31000), 3.0)
            known = len(reader.flows)
            assert cluster.web.reaches(cluster.db, 5432)
            until(lambda: len(reader.flows) > known, 10, "a flow for who reads")
            assert not reader.ended
        assert resident(server[1]) - before < GROWTH
        assert _status(server[0]).max_flows
        for stream in idle:
            stream.cancel()
    until(lambda: _readers(cluster) == 0, 30, "the end of all readers")


def test_of_a_flood_each_flow_is_delivered_or_told_as_lost(cluster: Cluster, hubble: Hubble, flows: list[Flow]) -> None:
    until(_quiet(cluster), 20, "an end of flows")
    server = f"unix://{cluster.lab.place.node(1).hubble_socket}"
    pid = cluster.lab.process("hubble")["pid"]
    memory, seen = resident(pid), _seen(cluster)
    with streams(server, [GetFlowsRequest(follow=True)], channels=1) as (reader,):
        until(lambda: _readers(cluster) == 1, 10, "a reader")
        began = time.monotonic()
        sent = flood(cluster.web, cluster.db.ipv6, range(1024, 60000), 4.0)
        lasted = time.monotonic() - began
        until(_quiet(cluster), 20, "an end of flows")
        made = _seen(cluster) - seen
        until(lambda: len(reader.flows) + reader.lost >= made, 60, "all flows, or word of their loss")
    assert made > 1000, f"{sent} packets in {lasted:.1f} s made {made} flows"
    assert resident(pid) - memory < GROWTH
    assert hubble.run("status").stdout.splitlines()[0].endswith("Ok")
    delivered = len(reader.flows)
    print(f"{sent:,} packets in {lasted:.1f} s: {made:,} flows, {delivered:,} delivered, {reader.lost:,} told as lost")
