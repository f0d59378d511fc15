"""Batches, L7 records and losses come in by the core's own means; what is kept of them is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ciliate.api.routes import Route
from ciliate.api.server import ApiServer
from ciliate.batches import Batches
from ciliate.directory import Card, publish
from ciliate.events import Events, TopicSpec
from ciliate.model.l7 import L7_RECORDS, L7Verdict
from ciliate.tables.file import TableFile
from ciliate.tables.hub import Tables
from ciliate_hubble.api import flow_pb2 as pb
from ciliate_hubble.columns import EventType, Flows
from ciliate_hubble.config import HubbleConfig
from ciliate_hubble.ingest.ingest import BATCH
from ciliate_hubble.losses import LossSource
from ciliate_hubble.observer.namespaces import Namespaces
from ciliate_hubble.observer.rate import Rate
from ciliate_node.peers.links import Links
from ciliate_node.peers.serving import follow_handler

from tests.unit.hubble.node import Node, dns, http, random_records, record

LIMIT = 10.0


@asynccontextmanager
async def running(*coroutines: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    await asyncio.sleep(0)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Any) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0.005)


async def test_every_record_of_a_batch_becomes_its_flows_and_sinks_see_them_all() -> None:
    node, batches = Node(), Batches(8192)
    seen: list[Flows] = []
    node.ingest.sinks.append(lambda flows: seen.append(flows.copy()))
    records = random_records(2500, 3)
    async with running(node.ingest.follow_batches(batches)):
        batches.hand_out(records[:1500])
        batches.hand_out(records[1500:])
        expected = node.flows(records)
        await until(lambda: node.ring.seen == len(expected))
    together = np.concatenate(seen)
    assert together["sequence"].tolist() == list(range(len(expected)))
    assert together["kind"].tolist() == expected["kind"].tolist()
    assert together["source_end"].tolist() == expected["source_end"].tolist()


async def test_records_of_a_drain_of_another_version_are_flows_by_what_both_know() -> None:
    node, batches = Node(), Batches(8192)
    other = np.dtype([("protocol", "u1"), ("kind", "u1"), ("shape", "<u8"), ("destination_port", "<u4")])
    records = np.zeros(3, other)
    records["kind"], records["protocol"], records["destination_port"] = EventType.TRACE, 17, 53
    async with running(node.ingest.follow_batches(batches)):
        batches.hand_out(records)
        await until(lambda: node.ring.seen == 3)
    flows = node.messages(node.ring.read(0, 3, 3).flows)
    assert [flow.l4.UDP.destination_port for flow in flows] == [53] * 3


async def test_losses_are_counted_by_where_they_happen_and_no_flow_stands_for_them() -> None:
    node, batches = Node(HubbleConfig(event_queue_size=BATCH, lost_event_send_interval=0.05)), Batches(8192)
    kernel = 1000
    batches.lost_elsewhere = lambda: kernel
    async with running(node.ingest.follow_batches(batches), node.ingest.tell_losses(batches, 0.05)):
        batches.hand_out(record())
        batches.hand_out(np.repeat(record(), 30))  # the queue holds one batch
        batches.lose(12)  # on the way here
        await until(lambda: node.ring.seen == 2)
        kernel += 7
        await until(lambda: node.losses.totals[LossSource.PERF_EVENT_RING_BUFFER])
        await until(lambda: node.losses.told == 2)
    assert node.losses.totals == {
        LossSource.PERF_EVENT_RING_BUFFER: 7,
        LossSource.OBSERVER_EVENTS_QUEUE: 42,
        LossSource.HUBBLE_RING_BUFFER: 0,
    }
    first, second = (node.losses.next(number) for number in (0, 1))
    assert first is not None
    assert second is not None
    assert {first.source: first.events, second.source: second.events} == {
        LossSource.OBSERVER_EVENTS_QUEUE: 42,
        LossSource.PERF_EVENT_RING_BUFFER: 7,
    }
    assert node.losses.next(2) is None


def test_what_the_kernel_lost_before_is_not_ours_and_a_new_ring_counts_anew() -> None:
    node = Node()
    lost = node.losses.totals
    for count, total in ((None, 0), (50, 0), (50, 0), (53, 3), (2, 3), (4, 5)):
        node.ingest.count_kernel_losses(count)
        assert lost[LossSource.PERF_EVENT_RING_BUFFER] == total


async def test_l7_records_of_any_plugin_become_flows_in_the_same_ring() -> None:
    node, events = Node(), Events()
    async with running(node.ingest.follow_requests(events)):
        events.emit(L7_RECORDS, http())
        events.emit(L7_RECORDS, http(403, verdict=L7Verdict.DENIED))
        events.emit(L7_RECORDS, dns(source_endpoint=0, source_identity=0))
        events.emit(L7_RECORDS, http(source="nonsense"))
        events.emit(L7_RECORDS, http(source_port=70_000, rule_set=-1))
        events.emit(L7_RECORDS, http(url="\ud800"))
        await until(lambda: node.requests.malformed == 3)
    rows = node.ring.read(0, 10, 10).flows
    assert rows["kind"].tolist() == [EventType.L7] * 3
    flows = node.messages(rows)
    assert [flow.Summary for flow in flows] == [
        "HTTP/1.1 GET http://web/api?x=1", "HTTP/1.1 403 0ms (GET http://web/api?x=1)", "DNS Query web.shop. A",
    ]  # fmt: skip
    assert flows[1].verdict == pb.DROPPED
    assert [policy.name for policy in flows[1].ingress_denied_by] == ["web", "other"]
    assert (flows[2].source.identity, flows[0].source.pod_name) == (2, "client")


async def test_l7_records_are_forgotten_with_their_flows() -> None:
    node, events = Node(capacity=63), Events()
    async with running(node.ingest.follow_requests(events)):
        for _ in range(40):
            for _ in range(1000):
                events.emit(L7_RECORDS, http())
            seen = node.ring.seen
            await until(lambda seen=seen: node.ring.seen == seen + 1000)
        await until(lambda: len(node.tables.l7) <= len(node.ring.rows()))
    oldest, newest = (node.ring.read(place, node.ring.seen, 1).flows for place in (node.ring.left, node.ring.seen - 1))
    assert [flow.l7.http.method for rows in (oldest, newest) for flow in node.messages(rows)] == ["GET", "GET"]
    gone = newest.copy()
    gone["l7"] = 1
    (flow,) = node.messages(gone)
    assert not flow.HasField("l7")


@pytest.mark.parametrize(
    ("settings", "url", "headers"),
    [
        ({}, "http://u:p@h/x?k=v#f", ["*/*", "1"]),
        ({"redact_enabled": True}, "http://u:HUBBLE_REDACTED@h/x?k=v#f", ["HUBBLE_REDACTED"] * 2),
        (
            {"redact_enabled": True, "redact_http_urlquery": True, "redact_http_headers_allow": ["ACCEPT"]},
            "http://u:HUBBLE_REDACTED@h/x", ["*/*", "HUBBLE_REDACTED"],
        ),
        (
            {"redact_enabled": True, "redact_http_userinfo": False, "redact_http_headers_deny": ["accept"]},
            "http://u:p@h/x?k=v#f", ["HUBBLE_REDACTED", "1"],
        ),
    ],
)  # fmt: skip
def test_what_must_not_be_seen_is_redacted_before_it_is_kept(settings: Any, url: str, headers: list[str]) -> None:
    node = Node(HubbleConfig(**settings))
    (flow,) = node.messages(node.requests_of(http(url="http://u:p@h/x?k=v#f")))
    assert flow.l7.http.url == url
    assert [header.value for header in flow.l7.http.headers] == headers
    assert url in flow.Summary
    (broken,) = node.messages(node.requests_of(http(url="http://[secret")))
    assert ("secret" in broken.l7.http.url) == (not settings)


async def test_l7_records_cross_processes_by_the_core_s_own_topic(tmp_path: Path) -> None:
    """Two processes of a node, as the driver of their peers connects them: sockets, cards, streams."""
    theirs = Events()
    theirs.declared = frozenset({L7_RECORDS.name})
    tables = Tables(TableFile(tmp_path / "proxy.sqlite"))
    server = ApiServer(tmp_path / "proxy.sock")
    server.claim()
    await server.start()
    server.add([Route("GET", "/follow", follow_handler(tables, theirs), "")])
    publish(tmp_path, Card(process="proxy", pid=0, socket=str(tmp_path / "proxy.sock"), topics=[L7_RECORDS.name]))
    ours, node = Events(), Node()
    links = Links(tmp_path, "hubble", ours)
    ours.absent = links.want_topic
    try:
        async with running(node.ingest.follow_requests(ours), links.run()):
            await until(lambda: theirs.queues(L7_RECORDS.name))
            theirs.emit(L7_RECORDS, http(200, latency=9_000_000))
            theirs.emit(TopicSpec(L7_RECORDS.name, dict, ""), {"time": "no record"})
            await until(lambda: node.ring.seen == 1)
            await until(lambda: node.losses.totals[LossSource.OBSERVER_EVENTS_QUEUE] == 1)
    finally:
        await server.stop()
        tables.close()
    (flow,) = node.messages(node.ring.read(0, 1, 1).flows)
    assert flow.Summary == "HTTP/1.1 200 9ms (GET http://web/api?x=1)"


def test_namespaces_of_flows_are_known_for_a_time() -> None:
    node = Node()
    flows = node.flows(np.concatenate([record(1, 0), record(9, 1)]))
    for kept, known in ((3600.0, [("default", "default"), ("east", "shop")]), (-1.0, [])):
        namespaces = Namespaces(node.tables.ends, kept)
        namespaces.take(flows)
        assert list(namespaces) == known


def test_a_rate_is_of_the_last_minute_or_since_the_start() -> None:
    rate = Rate(100.0)
    for second in range(100, 110):
        rate.add(50, second + 0.5)
    assert rate.per_second(110.0) == 50.0
    assert rate.per_second(165.0) == pytest.approx(4 * 50 / 60)
    assert rate.per_second(300.0) == 0.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"event_buffer_capacity": 4096}, "4096 must be a power of two less one: 4095 or 8191"),
        ({"redact_http_headers_allow": ["a"], "redact_http_headers_deny": ["b"]}, "give one of them"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        HubbleConfig(**settings)
