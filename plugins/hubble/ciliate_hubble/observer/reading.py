"""GetFlows: a reader's way through the ring, with its losses, as messages that are ready to be sent.

A reader holds nothing but its place: one that is too slow is overtaken, and told how much it has lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from ciliate_hubble.columns import Flows, selected
from ciliate_hubble.encoding import wire
from ciliate_hubble.encoding.flows import FlowEncoders
from ciliate_hubble.encoding.mask import Mask
from ciliate_hubble.filters.matcher import Matcher
from ciliate_hubble.history import Older
from ciliate_hubble.losses import Gathering, Loss, Losses, LossSource
from ciliate_hubble.observer.span import Span
from ciliate_hubble.ring import Ring
from ciliate_hubble.tables import FlowTables

ENCODED = 256
"""Rows that are encoded at once: 3 ms."""


@dataclass(frozen=True)
class Kept:
    """What there is to read. lost_interval: seconds between two messages of one reader's losses."""

    ring: Ring
    tables: FlowTables
    losses: Losses
    encoders: FlowEncoders
    lost_interval: float
    older: Older | None = None


class Reading:
    """One GetFlows request. Iterate `messages` once. Raises FilterError when it is made."""

    def __init__(self, kept: Kept, span: Span, matcher: Matcher, mask: Mask) -> None:
        self._kept = kept
        self._ring = kept.ring
        self._span = span
        self._matcher = matcher
        self._mask = mask
        self._encoder = kept.encoders.of(mask)
        self._left = span.most  # flows to give yet; None: no limit
        self._ended = False  # an event later than `until` has been met
        self._overtaken = Gathering(kept.lost_interval)
        self._next_loss = 0

    async def messages(self) -> AsyncIterator[list[bytes]]:
        """GetFlowsResponse messages in order, some at a time, each of them encoded."""
        async for found in self._older():
            yield found
        end = self._ring.seen
        place = await self._start(end)
        self._next_loss = self._kept.losses.told if place == end else self._kept.losses.after(place)
        while not self._done:
            stop = self._ring.seen if self._span.follow else end
            if place < stop or self._loss_at(place):
                place, found = self._step(place, stop)
                if found:
                    yield found
                else:
                    await asyncio.sleep(0)
            elif self._span.follow:
                await self._wait()
                yield self._told_overtaken(place)
            else:
                break
        yield self._told_overtaken(place, at_once=True)

    @property
    def _done(self) -> bool:
        return self._ended or self._left == 0

    async def _start(self, end: int) -> int:
        """The place of the first flow to look at."""
        span, oldest = self._span, self._ring.oldest
        if span.since is not None or span.first:
            return oldest
        if not span.number:
            return end if span.follow else oldest
        return await self._rewind(end, oldest)

    async def _rewind(self, end: int, oldest: int) -> int:
        """The place from which on there are as many flows that match as were asked for, or all."""
        wanted, place = self._span.number, end
        while place > oldest:
            flows = self._ring.read_back(place, oldest, self._matcher.rows)
            if not len(flows):
                break
            rows = np.flatnonzero(self._matcher.mask(flows))
            if len(rows) >= wanted:
                return place - len(flows) + int(rows[-wanted])
            wanted -= len(rows)
            place -= len(flows)
            await asyncio.sleep(0)
        return place

    def _step(self, place: int, stop: int) -> tuple[int, list[bytes]]:
        """What there is from a place on, up to the next message about losses; and the place after it."""
        found = self._losses_at(place)
        loss = self._kept.losses.next(self._next_loss)
        if loss is not None and place < loss.place:
            stop = min(stop, loss.place)
        read = self._ring.read(place, stop, self._matcher.rows)
        if read.lost:
            self._overtaken.add(read.lost, time.time_ns())
            self._kept.losses.count(LossSource.HUBBLE_RING_BUFFER, read.lost)
        found += self._told_overtaken(place)
        rows, last = self._chosen(read.flows)
        after = read.next if last is None else read.next - len(read.flows) + last + 1
        return after, found + self._encoder.responses(rows)

    def _chosen(self, flows: Flows, matcher: Matcher | None = None) -> tuple[Flows, int | None]:
        """The rows to give, at most ENCODED; and the index of the last that was looked at, None for all of them."""
        span = self._span
        if span.until is not None:
            late = np.flatnonzero(flows["time"] > max(span.until, 0))
            if len(late):
                flows, self._ended = flows[: late[0]], True
        mask = (matcher or self._matcher).mask(flows)
        if span.since is not None:
            mask &= flows["time"] >= max(span.since, 0)
        rows = np.flatnonzero(mask)
        most = ENCODED if self._left is None else min(ENCODED, self._left)
        last = None
        if len(rows) > most:
            rows = rows[:most]
            last = int(rows[-1])
            self._ended = False  # not yet there
        if self._left is not None:
            self._left -= len(rows)
        return selected(flows, rows), last

    def _told_overtaken(self, place: int, *, at_once: bool = False) -> list[bytes]:
        """The message of what this reader was too slow for, if it is due."""
        told = self._overtaken.due(time.time_ns(), at_once=at_once)
        return [] if told is None else [self._lost(Loss(LossSource.HUBBLE_RING_BUFFER, *told, place, 0))]

    def _loss_at(self, place: int) -> bool:
        loss = self._kept.losses.next(self._next_loss)
        return loss is not None and loss.place <= place

    def _losses_at(self, place: int) -> list[bytes]:
        found = []
        while (loss := self._kept.losses.next(self._next_loss)) is not None and loss.place <= place:
            found.append(self._lost(loss))
            self._next_loss = loss.number + 1
        return found

    async def _wait(self) -> None:
        """Until there is more; or until losses that were held back may be told."""
        if not self._overtaken.pending:
            await self._ring.wait()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._kept.lost_interval):
                await self._ring.wait()

    async def _older(self) -> AsyncIterator[list[bytes]]:
        """What somebody keeps of the time before the ring's."""
        span, older = self._span, self._kept.older
        if older is None or (span.since is None and not span.first):
            return
        oldest = self._ring.read(self._ring.oldest, self._ring.seen, 1).flows
        before = int(oldest["time"][0]) if len(oldest) else time.time_ns()
        async for segment in older.read(span.since or 0, before):
            matcher = self._matcher.over(segment.tables)
            encoder = FlowEncoders(segment.tables, policies=self._kept.encoders.policies).of(self._mask)
            flows = segment.flows
            while len(flows) and not self._done:
                rows, last = self._chosen(flows[: matcher.rows], matcher)
                flows = flows[matcher.rows if last is None else last + 1 :]
                yield encoder.responses(rows)
            if self._done:
                return

    def _lost(self, loss: Loss) -> bytes:
        return lost_response(loss, self._kept.tables.node_name)


def lost_response(loss: Loss, node_name: str) -> bytes:
    """A GetFlowsResponse that tells of losses."""
    body = (
        wire.number(1, loss.source)
        + wire.number(2, loss.events)
        + wire.message(4, wire.timestamp(loss.first))
        + wire.message(5, wire.timestamp(loss.last))
    )
    return wire.message(3, body) + wire.text(1000, node_name) + wire.message(1001, wire.timestamp(loss.last))
