"""GetFlows: where reading begins and ends, and what a reader is told that was too slow."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
from ciliate_hubble.api import flow_pb2 as pb
from ciliate_hubble.api import observer_pb2 as api
from ciliate_hubble.config import HubbleConfig
from ciliate_hubble.encoding.flows import FlowEncoders
from ciliate_hubble.encoding.mask import EVERYTHING, compile_mask
from ciliate_hubble.filters.matcher import ROWS, Matcher
from ciliate_hubble.history import Segment
from ciliate_hubble.losses import LossSource
from ciliate_hubble.observer.reading import ENCODED, Kept, Reading
from ciliate_hubble.observer.span import Span, SpanError, span_of

from tests.unit.hubble.node import CLOCK, SPARE, Node, Records, record

SECOND = 1_000_000_000
WEB = pb.FlowFilter(source_pod=["default/web"])


class Reader:
    """A node with flows 0, 1, 2, ... a second apart; every third is web's, the others' the client's."""

    def __init__(self, count: int, capacity: int = 4095, interval: float = 0.05, **options: Any) -> None:
        self.node = Node(HubbleConfig(event_buffer_capacity=capacity, lost_event_send_interval=interval))
        encoders = FlowEncoders(self.node.tables)
        self.kept = Kept(self.node.ring, self.node.tables, self.node.losses, encoders, interval, **options)
        self.put(count)

    def put(self, count: int) -> None:
        self.node.put(records(self.node.ring.seen, count))
        self.node.ring.wake()

    async def followed(self) -> None:
        """Until a reader has read all and waits."""
        async with asyncio.timeout(5):
            while not self.node.ring.waiting:
                await asyncio.sleep(0)

    def reading(self, span: Span, *filters: pb.FlowFilter, unwanted: Any = (), mask: Any = ()) -> Reading:
        matcher = Matcher(filters, list(unwanted), self.node.tables)
        return Reading(self.kept, span, matcher, compile_mask(mask) if mask else EVERYTHING)

    async def read(self, span: Span, *filters: pb.FlowFilter, **options: Any) -> list[int | str]:
        """Numbers of flows, and `source:count` of losses."""
        return [
            shown(api.GetFlowsResponse.FromString(message))
            async for some in self.reading(span, *filters, **options).messages()
            for message in some
        ]


def records(first: int, count: int) -> Records:
    made = np.repeat(record(2, 0), count)
    made[np.arange(first, first + count) % 3 == 0] = record(1, 0)
    made["time"] = (np.arange(first, first + count) * SECOND).astype(np.uint64)
    return made


def shown(answer: api.GetFlowsResponse) -> int | str:
    if answer.HasField("lost_events"):
        assert answer.node_name == "node1"
        assert answer.lost_events.first.seconds <= answer.lost_events.last.seconds
        return f"{answer.lost_events.source}:{answer.lost_events.num_events_lost}"
    return (answer.flow.time.ToNanoseconds() - CLOCK) // SECOND


def at(second: int) -> int:
    return CLOCK + second * SECOND


def expected(span: Span, oldest: int, seen: int, wanted: Any) -> list[int]:
    """What section 8 of the facts says, of a reader that doesn't follow."""
    if span.since is not None:
        start = next((n for n in range(oldest, seen) if at(n) >= span.since), seen)
    elif span.first or not span.number:
        start = oldest
    else:
        start, counted = seen, 0
        while start > oldest and counted < span.number:
            start -= 1
            counted += wanted(start)
    found: list[int] = []
    for number in range(start, seen):
        if span.until is not None and at(number) > span.until:
            break
        if span.number and len(found) == span.number:
            break
        if wanted(number):
            found.append(number)
    return found


@pytest.mark.parametrize("count", [0, 1, 60, 63, 64, 500])
async def test_spans_are_read_as_the_facts_say(count: int) -> None:
    reader = Reader(count, capacity=63)
    oldest = max(0, count - 63)
    rng = random.Random(count)
    for _ in range(150):
        number = rng.choice([0, 0, 1, 5, 62, 1000])
        since, until = (at(rng.randint(oldest - 10, count + 10)) if rng.random() < 0.5 else None for _ in range(2))
        span = Span(number, rng.random() < 0.3, False, since, until)
        only_web = rng.random() < 0.5

        def wanted(n: int, only: bool = only_web) -> bool:
            return not only or n % 3 == 0

        found = await reader.read(span, *([WEB] if only_web else []))
        assert found == expected(span, oldest, count, wanted), span


async def test_both_lists_decide() -> None:
    reader = Reader(10)
    assert await reader.read(Span(), unwanted=[WEB]) == [1, 2, 4, 5, 7, 8]
    assert await reader.read(Span(), WEB, unwanted=[WEB]) == []


async def test_large_answers_are_whole_and_in_order() -> None:
    reader = Reader(20_000, capacity=32_767)
    assert await reader.read(Span()) == list(range(20_000))
    assert await reader.read(Span(number=7000), WEB) == [n for n in range(20_000) if n % 3 == 0][-7000:]
    assert ROWS < 20_000
    assert ENCODED < 7000


async def test_what_comes_after_the_request_is_not_part_of_the_answer() -> None:
    reader = Reader(1000)
    found = []
    async for some in reader.reading(Span()).messages():
        reader.put(500)
        found += [shown(api.GetFlowsResponse.FromString(message)) for message in some]
    assert found == list(range(1000))


async def take(messages: AsyncIterator[list[bytes]], count: int) -> list[int | str]:
    found: list[int | str] = []
    while len(found) < count:
        some = await asyncio.wait_for(anext(messages), 5)
        found += [shown(api.GetFlowsResponse.FromString(message)) for message in some]
    return found


@pytest.mark.parametrize(
    ("span", "before"),
    [
        (Span(follow=True), []),
        (Span(follow=True, number=2), [8, 9]),
        (Span(follow=True, since=at(7)), [7, 8, 9]),
        (Span(follow=True, number=1, since=at(7)), [7, 8, 9]),
    ],
)
async def test_a_follower_goes_on_for_ever_whatever_the_number(span: Span, before: list[int]) -> None:
    reader = Reader(10)
    async with aclosing(reader.reading(span).messages()) as messages:  # type: ignore[type-var]
        following = asyncio.create_task(take(messages, len(before) + 25))
        for _ in range(5):
            await reader.followed()
            reader.put(5)
        assert await following == [*before, *range(10, 35)]


async def test_a_follower_ends_with_an_event_later_than_until() -> None:
    reader = Reader(5)
    following = asyncio.create_task(reader.read(Span(follow=True, until=at(7))))
    for _ in range(4):
        await reader.followed()
        reader.put(1)
    assert await asyncio.wait_for(following, 5) == [5, 6, 7]


async def test_a_follower_that_is_too_slow_is_told_how_much_it_lost() -> None:
    reader = Reader(0, capacity=63)
    size = 63 + SPARE
    async with aclosing(reader.reading(Span(follow=True)).messages()) as messages:  # type: ignore[type-var]
        first = asyncio.create_task(take(messages, 1))
        await reader.followed()
        reader.put(1)
        assert await first == [0]
        reader.put(size + 100)
        found = await take(messages, size + 1)
        assert found == [f"{LossSource.HUBBLE_RING_BUFFER}:100", *range(101, size + 101)]
    assert reader.node.losses.totals[LossSource.HUBBLE_RING_BUFFER] == 100


async def test_losses_of_a_slow_follower_are_told_once_an_interval_and_in_the_end() -> None:
    reader = Reader(0, capacity=63, interval=60)
    size = 63 + SPARE + 10
    following = asyncio.create_task(reader.read(Span(follow=True, until=at(3 * size - 1)), WEB))
    for _ in range(3):
        await reader.followed()
        reader.put(size)
    await reader.followed()
    reader.put(1)
    losses = [one for one in await asyncio.wait_for(following, 5) if isinstance(one, str)]
    assert losses == ["3:10", "3:20"], "the first at once, the others only with the end"


async def test_losses_that_were_held_back_are_told_when_nothing_more_comes() -> None:
    reader = Reader(0, capacity=63, interval=0.1)
    async with aclosing(reader.reading(Span(follow=True), WEB).messages()) as messages:  # type: ignore[type-var]
        following = asyncio.create_task(take_losses(messages, 20))
        for _ in range(2):
            await reader.followed()
            reader.put(63 + SPARE + 10)
        assert sum(await asyncio.wait_for(following, 5)) == 20


async def take_losses(messages: AsyncIterator[list[bytes]], count: int) -> list[int]:
    told: list[int] = []
    while sum(told) < count:
        answers = map(api.GetFlowsResponse.FromString, await anext(messages))
        told += [answer.lost_events.num_events_lost for answer in answers if answer.HasField("lost_events")]
    return told


async def test_losses_stand_between_the_flows_where_they_happened_and_pass_all_filters() -> None:
    reader = Reader(4)
    losses = reader.node.losses
    losses.add(LossSource.PERF_EVENT_RING_BUFFER, 7, CLOCK)
    losses.add(LossSource.OBSERVER_EVENTS_QUEUE, 5, CLOCK)
    assert losses.tell(CLOCK + SECOND)
    reader.put(2)
    assert await reader.read(Span()) == [0, 1, 2, 3, "1:7", "2:5", 4, 5]
    assert await reader.read(Span(number=3), WEB) == [0, 3, "1:7", "2:5"]
    assert await reader.read(Span(number=1)) == [5]
    assert (
        await reader.read(Span(), mask=["verdict"]) == [-CLOCK // SECOND] * 4 + ["1:7", "2:5"] + [-CLOCK // SECOND] * 2
    )


async def test_a_follower_gets_losses_when_they_are_told() -> None:
    reader = Reader(3)
    async with aclosing(reader.reading(Span(follow=True)).messages()) as messages:  # type: ignore[type-var]
        following = asyncio.create_task(take(messages, 2))
        await reader.followed()
        reader.node.losses.add(LossSource.PERF_EVENT_RING_BUFFER, 9, CLOCK)
        reader.node.losses.tell(CLOCK + SECOND)
        reader.node.ring.wake()
        await reader.followed()
        reader.put(1)
        assert await following == ["1:9", 3]


class OnDisk:
    """Keeps flows of before the ring's, as a plugin to come might."""

    def __init__(self, node: Node, count: int) -> None:
        self._node = node
        self._flows = node.flows(records(-count, count))
        self.asked: list[tuple[int, int]] = []

    async def read(self, since: int, before: int) -> AsyncIterator[Segment]:
        self.asked.append((since, before))
        rows = self._flows[(self._flows["time"] >= since) & (self._flows["time"] < before)]
        for start in range(0, len(rows), 100):
            yield Segment(rows[start : start + 100], self._node.tables)


async def test_older_flows_come_from_whoever_keeps_them() -> None:
    disk = OnDisk(Node(), 300)
    reader = Reader(5, older=disk)
    assert await reader.read(Span(since=at(-3))) == [-3, -2, -1, 0, 1, 2, 3, 4]
    assert disk.asked == [(at(-3), at(0))]
    assert await reader.read(Span(first=True), WEB) == [*range(-300, 5, 3)]
    assert await reader.read(Span(number=4, since=at(-2))) == [-2, -1, 0, 1]
    assert await reader.read(Span(since=at(-9), until=at(-8))) == [-9, -8]
    assert await reader.read(Span(number=3)) == [2, 3, 4]
    assert len(disk.asked) == 4


def test_spans_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SpanError, match="first, follow"):
        span_of(api.GetFlowsRequest(first=True, follow=True))
    wrong = api.GetFlowsRequest()
    wrong.since.nanos = 1_000_000_000
    with pytest.raises(SpanError, match=r"since\.nanos: 1000000000 must be from 0 to 999999999"):
        span_of(wrong)


async def test_times_before_the_epoch_are_times() -> None:
    reader = Reader(3)
    assert await reader.read(Span(since=-5)) == [0, 1, 2]
    assert await reader.read(Span(until=-5)) == []
    assert await reader.read(Span(since=2**93)) == []
    assert await reader.read(Span(until=2**93)) == [0, 1, 2]
