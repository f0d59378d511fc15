"""Requests that end: what a reader of the relay gets from all nodes."""

from __future__ import annotations

import random
import time
from typing import Any

import grpc
import grpc.aio
import pytest
from ciliate_hubble.api import observer_pb2 as api
from ciliate_hubble.api.relay_pb2 import NodeState
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2

from tests.unit.hubble.relay.conftest import Relay
from tests.unit.hubble.relay.nodes import Node, lost, response, stamp
from tests.unit.processes.parts import reached

SECOND = 1_000_000_000


def node_of(name: str, *times: int) -> Node:
    return Node(name, history=[response(name, at, f"{name}@{at}") for at in times])


def names(found: list[api.GetFlowsResponse]) -> list[str]:
    return [one.flow.uuid for one in found if one.HasField("flow")]


def states(found: list[api.GetFlowsResponse]) -> list[tuple[str, list[str]]]:
    return [
        (NodeState.Name(one.node_status.state_change), list(one.node_status.node_names))
        for one in found
        if one.HasField("node_status")
    ]


async def test_flows_of_all_nodes_come_in_the_order_of_their_times(relay: Relay) -> None:
    choose = random.Random(7)
    times = choose.sample(range(SECOND, 100 * SECOND), 3000)
    nodes = [node_of(name, *sorted(times[number::3])) for number, name in enumerate(("a", "b", "c"))]
    await relay.start(*nodes)
    found = await relay.flows()
    assert states(found) == [("NODE_CONNECTED", ["a", "b", "c"])]
    assert [one.time.ToNanoseconds() for one in found if one.HasField("flow")] == sorted(times)


async def test_nodes_that_are_not_there_are_told_after_those_that_are_and_before_any_flow(relay: Relay) -> None:
    away = node_of("away")
    away.nowhere()
    await relay.start(node_of("here", 5), away)
    found = await relay.flows()
    assert states(found) == [("NODE_CONNECTED", ["here"]), ("NODE_UNAVAILABLE", ["away"])]
    assert [one.WhichOneof("response_types") for one in found] == ["node_status", "node_status", "flow"]
    assert {one.node_name for one in found if one.HasField("node_status")} == {"relay-node"}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"number": 3}, ["a@60", "b@61", "b@70"]),
        ({"number": 3, "first": True}, ["a@10", "b@11", "b@12"]),
        ({"number": 3, "since": stamp(12)}, ["b@12", "a@50", "a@60"]),
        ({"number": 100}, ["a@10", "b@11", "b@12", "a@50", "a@60", "b@61", "b@70"]),
    ],
    ids=["last", "first", "since", "more than there are"],
)
async def test_a_number_counts_over_all_nodes(relay: Relay, request_: dict[str, object], expected: list[str]) -> None:
    await relay.start(node_of("a", 10, 50, 60), node_of("b", 11, 12, 61, 70))
    assert names(await relay.flows(**request_)) == expected


async def test_losses_pass_in_their_place_and_are_not_counted(relay: Relay) -> None:
    node = Node("a", history=[response("a", 1, "1"), lost("a", 7), response("a", 2, "2"), lost("a", 8)])
    await relay.start(node)
    kinds = [one.WhichOneof("response_types") for one in await relay.flows()]
    assert kinds == ["node_status", "flow", "lost_events", "flow", "lost_events"]
    last = [one.WhichOneof("response_types") for one in await relay.flows(number=2)]
    assert last == ["node_status", "flow", "lost_events", "flow"]


async def test_a_mask_without_the_time_still_gives_flows_in_order_and_without_it(relay: Relay) -> None:
    node_a, node_b = node_of("a", 1, 4), node_of("b", 2, 3)
    await relay.start(node_a, node_b)
    found = await relay.flows(field_mask=FieldMask(paths=["uuid"]))
    assert names(found) == ["a@1", "b@2", "b@3", "a@4"]
    assert not any(one.HasField("time") or one.flow.HasField("time") for one in found if one.HasField("flow"))
    assert list(node_a.requests[0].field_mask.paths) == ["uuid", "time"]


async def test_nodes_get_the_request_and_its_metadata_as_the_reader_gave_them(relay: Relay) -> None:
    node = node_of("a", 1)
    await relay.start(node)
    request = api.GetFlowsRequest(number=5, until=stamp(9))
    request.whitelist.add(source_pod=["default/x"])
    call = relay.stub.GetFlows(request, metadata=(("authorization", "Basic eDp5"), ("x-mine-bin", b"\x00\xff")))
    assert len([one async for one in call]) == 2
    assert node.requests == [request]
    assert node.metadata[0]["authorization"] == "Basic eDp5"
    assert node.metadata[0]["x-mine-bin"] == b"\x00\xff"


async def test_what_all_nodes_refuse_is_refused_in_their_words(relay: Relay) -> None:
    nodes = [node_of("a", 1), node_of("b", 2)]
    for node in nodes:
        node.refuse = (grpc.StatusCode.INVALID_ARGUMENT, "whitelist[0].source_ip: nonsense is no address")
    await relay.start(*nodes)
    for follow in (False, True):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await relay.flows(follow=follow)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert raised.value.details() == "whitelist[0].source_ip: nonsense is no address"


async def test_equal_errors_of_nodes_are_one_status_and_the_others_flows_come(relay: Relay) -> None:
    bad = [node_of(name, 1) for name in ("x", "y", "z")]
    for node in bad[:2]:
        node.refuse = (grpc.StatusCode.INTERNAL, "out of order")
    bad[2].refuse = (grpc.StatusCode.INVALID_ARGUMENT, "what is that?")
    await relay.start(node_of("a", 1), *bad)
    found = await relay.flows()
    assert names(found) == ["a@1"]
    errors = {one.node_status.message: list(one.node_status.node_names) for one in found[1:] if one.node_status.message}
    assert errors == {"INTERNAL: out of order": ["x", "y"], "INVALID_ARGUMENT: what is that?": ["z"]}


async def test_a_node_that_is_silent_holds_the_others_for_the_span_only(relay: Relay) -> None:
    silent = node_of("silent")
    silent.hangs = True
    await relay.start(node_of("a", *range(1, 500)), silent, sort_buffer_drain_timeout=0.3)
    call = relay.stub.GetFlows(api.GetFlowsRequest())
    began = time.monotonic()
    count = 0
    while count < 499:
        count += (await call.read()).HasField("flow")
    assert 0.3 <= time.monotonic() - began < 5
    call.cancel()


async def test_a_node_that_hangs_is_left_out_once_it_does_not_answer(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ciliate_hubble.relay.flows.SILENT_MOST", 1.0)
    silent = node_of("silent")
    silent.hangs = True
    await relay.start(node_of("a", 1, 2), silent)
    found = await relay.flows()
    assert names(found) == ["a@1", "a@2"]
    assert found[-1].node_status.message == "DEADLINE_EXCEEDED: has sent nothing for 1 s"
    assert list(found[-1].node_status.node_names) == ["silent"]


async def test_status_sums_over_the_nodes(relay: Relay) -> None:
    away = [node_of(f"away{number:02}") for number in range(12)]
    for node in away:
        node.nowhere()
    await relay.start(node_of("a", 1, 2), node_of("b", 3), *away)
    call = relay.stub.ServerStatus(api.ServerStatusRequest())
    status = await call
    assert dict(await call.initial_metadata())["hubble-relay-version"].startswith("hubble-relay v")
    assert (status.num_flows, status.max_flows, status.seen_flows) == (3, 2 * 4095, 13)
    assert (status.uptime_ns, status.flows_rate) == (7, 3.0)
    assert (status.num_connected_nodes.value, status.num_unavailable_nodes.value) == (2, 12)
    assert list(status.unavailable_nodes) == [node.name for node in away][:10]
    assert status.version.startswith("hubble-relay v")


async def test_nodes_are_listed_with_how_they_fare(relay: Relay) -> None:
    away, here = node_of("away"), node_of("here", 1)
    away.nowhere()
    await relay.start(here, away)
    listed = (await relay.stub.GetNodes(api.GetNodesRequest())).nodes
    assert [(node.name, NodeState.Name(node.state)) for node in listed] == [
        ("away", "NODE_UNAVAILABLE"),
        ("here", "NODE_CONNECTED"),
    ]
    assert (listed[1].address, listed[1].version) == (f"127.0.0.1:{here.port}", "cilium v1")
    assert (listed[1].num_flows, listed[1].max_flows, listed[1].seen_flows, listed[1].uptime_ns) == (1, 4095, 6, 7)
    assert not listed[1].tls.enabled


async def test_namespaces_are_those_of_all_nodes(relay: Relay) -> None:
    one, two = node_of("one"), node_of("two")
    one.namespaces = (("default", "shop"), ("default", "kube-system"))
    two.namespaces = (("default", "shop"), ("a", "z"))
    await relay.start(one, two)
    found = (await relay.stub.GetNamespaces(api.GetNamespacesRequest())).namespaces
    listed = [(namespace.cluster, namespace.namespace) for namespace in found]
    assert listed == [("a", "z"), ("default", "kube-system"), ("default", "shop")]


@pytest.mark.parametrize("method", ["GetAgentEvents", "GetDebugEvents"])
async def test_events_of_agents_are_not_the_relays(relay: Relay, method: str) -> None:
    await relay.start(node_of("a"))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in getattr(relay.stub, method)(getattr(api, f"{method}Request")()):
            pass
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_relay_that_knows_no_nodes_says_so(relay: Relay) -> None:
    await relay.start_relay(0)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await relay.flows()
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "the relay knows no nodes yet: unix://" in (raised.value.details() or "")


async def test_it_serves_when_it_is_connected_to_a_node(relay: Relay) -> None:
    node = node_of("a", 1)
    await relay.start(node)

    async def health() -> int:
        call: Any = relay.channel.unary_unary("/grpc.health.v1.Health/Check")
        asked = health_pb2.HealthCheckRequest(service="hubble.server.Observer").SerializeToString()
        return int(health_pb2.HealthCheckResponse.FromString(await call(asked)).status)

    await reached(lambda: not relay.reasons, 10)
    assert await health() == health_pb2.HealthCheckResponse.SERVING
    await node.stop()
    await reached(lambda: any("peers: a: " in reason for reason in relay.reasons), 10)
    assert await health() == health_pb2.HealthCheckResponse.NOT_SERVING
