"""Following what other processes serve: a link to each that has something wanted, made anew when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import msgspec
import structlog
from ciliate.api.routes import ApiError
from ciliate.api.wire import Answer, Call, FrameError, frame, read_frame
from ciliate.directory import Card, cards, folder
from ciliate.events import Events, TopicSpec
from ciliate.tables.table import Table

from ciliate_node.peers.mirror import Mirror, TableDelta
from ciliate_node.peers.serving import HEARTBEAT, Message

log = structlog.get_logger("peers")
BACKOFF_FIRST = 0.02
BACKOFF_MOST = 0.5
QUEUE = 4096
"""Events of all topics together that a peer keeps for us while we don't read."""


async def stream(socket: str, path: str, query: dict[str, str], silence: float) -> AsyncIterator[Any]:
    """The bodies of another process's stream. Raises OSError, FrameError, ApiError; TimeoutError after `silence` s."""
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(frame(Call(method="GET", path=path, query=query)))
        while True:
            async with asyncio.timeout(silence):
                data = await read_frame(reader)
            if data is None:
                raise ConnectionResetError(f"{socket}: the connection ended")
            answer = msgspec.msgpack.decode(data, type=Answer)
            if answer.status >= 400:
                raise ApiError(answer.status, str(answer.body))
            if not answer.more:
                return
            yield answer.body
    finally:
        writer.close()


class Links:
    """All links of this process. `want_*` may be called at any time; `run` is a supervised task."""

    def __init__(self, run_dir: Path, process: str, events: Events) -> None:
        self._run_dir = run_dir
        self._process = process
        self._events = events
        self._mirrors: dict[str, Mirror[Any]] = {}
        self._topics: dict[str, msgspec.msgpack.Decoder[Any]] = {}
        self._links: dict[str, tuple[Card, set[str], set[str], asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()
        self._delay = BACKOFF_FIRST
        self._seen = 0  # when the directory last changed

    def want_table(self, table: Table[Any]) -> None:
        """Keep a table equal to what its writer, wherever it is, says."""
        self._mirrors[table.spec.name] = Mirror(table)
        self._wake.set()

    def want_topic(self, topic: TopicSpec[Any]) -> None:
        """Bring a topic's events here, from every process that emits it."""
        self._topics.setdefault(topic.name, msgspec.msgpack.Decoder(topic.type))
        self._wake.set()

    def linked(self) -> dict[str, list[str]]:
        """Tables and topics that come from each process."""
        return {card.process: sorted(tables | topics) for card, tables, topics, task in self._links.values()}

    async def run(self) -> None:
        """Link to whoever serves what is wanted, for ever."""
        try:
            while True:
                self._wake.clear()
                self._relink()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._delay if self._mirrors or self._topics else None):
                        await self._wake.wait()
                self._delay = min(2 * self._delay, BACKOFF_MOST)
        finally:
            for *_, task in self._links.values():
                task.cancel()
            await asyncio.gather(*(link[3] for link in self._links.values()), return_exceptions=True)

    def _relink(self) -> None:
        with suppress(FileNotFoundError):
            changed = folder(self._run_dir).stat().st_mtime_ns
            if changed != self._seen:
                self._seen, self._delay = changed, BACKOFF_FIRST
        wanted: dict[str, tuple[Card, set[str], set[str]]] = {}
        taken: set[str] = set()
        for card in cards(self._run_dir):
            tables = (set(card.tables) & self._mirrors.keys()) - taken
            topics = set(card.topics) & self._topics.keys()
            if card.process != self._process and (tables or topics):
                wanted[card.socket] = (card, tables, topics)
                taken |= tables
        for socket, link in list(self._links.items()):
            if link[3].done() or wanted.get(socket) != link[:3]:
                link[3].cancel()
                del self._links[socket]
        for socket, (card, tables, topics) in wanted.items():
            if socket not in self._links:
                task = asyncio.create_task(self._link(card, tables, topics), name=f"core.link-{card.process}")
                self._links[socket] = (card, tables, topics, task)

    async def _link(self, card: Card, tables: set[str], topics: set[str]) -> None:
        query = {"tables": ",".join(tables), "topics": ",".join(topics), "capacity": str(QUEUE)}
        parts: dict[str, list[TableDelta]] = {}
        heard = False
        try:
            async with aclosing(stream(card.socket, "/follow", query, 4 * HEARTBEAT)) as bodies:  # type: ignore[type-var]
                async for body in bodies:
                    heard = True
                    message = msgspec.convert(body, Message)
                    for delta in message.tables:
                        parts.setdefault(delta.name, []).append(delta)
                    if not message.more:
                        for name, deltas in parts.items():
                            self._mirrors[name].apply(deltas)
                        parts = {}
                    self._hand_out(message)
        except (OSError, FrameError, ApiError, TimeoutError, msgspec.MsgspecError) as error:
            log.debug("link ended", process=card.process, reason=f"{type(error).__name__}: {error}")
        finally:
            for name in tables:
                self._mirrors[name].lost()
            if heard:  # it has just ended: look at once, and then often, for its successor
                self._delay = BACKOFF_FIRST
                self._wake.set()

    def _hand_out(self, message: Message) -> None:
        for name, events, lost in message.events:
            decoder = self._topics[name]
            for raw in events:
                try:
                    self._events.emit(TopicSpec(name, object, ""), decoder.decode(raw))
                except msgspec.DecodeError:
                    lost += 1
            if lost:
                self._events.lose(name, lost)
