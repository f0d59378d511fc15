"""One node's connection: kept up with back-off, checked, and made anew when the relay's certificate is renewed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import grpc.aio
from structlog.stdlib import BoundLogger

from ciliate_hubble.api.relay_pb2 import NODE_CONNECTED, NODE_UNAVAILABLE, UNKNOWN_NODE_STATE, NodeState
from ciliate_hubble.certificates.material import Keeper, Material
from ciliate_hubble.relay.channels import Checks, check, open_channel, until_lost
from ciliate_hubble.relay.peers import Peer

BACKOFF_FIRST, BACKOFF_MOST = 0.1, 10.0
_generations = count(1)


class Line:
    """A channel, and who uses it. One that is retired ends with its last use, so that streams go on over a renewal."""

    def __init__(self, channel: grpc.aio.Channel, material: Material | None) -> None:
        self.channel = channel
        self.material = material
        self._uses = 0
        self._retired = False

    @contextmanager
    def use(self) -> Iterator[grpc.aio.Channel]:
        """The channel for the time of a block."""
        self._uses += 1
        try:
            yield self.channel
        finally:
            self._uses -= 1
            self._end_if_unused()

    def retire(self) -> None:
        """No new use will come."""
        self._retired = True
        self._end_if_unused()

    def close(self) -> None:
        """End it at once: who still uses it is cancelled."""
        closing = asyncio.get_running_loop().create_task(self.channel.close())
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)

    def _end_if_unused(self) -> None:
        if self._retired and not self._uses:
            self.close()


_closing: set[asyncio.Task[None]] = set()
"""What nobody else holds, so that it is not lost before its end."""


class Connection:
    """Keeps a line to one peer while it lives. state, reason and line change together, and `changed` is called then."""

    def __init__(
        self, peer: Peer, keeper: Keeper | None, checks: Checks, changed: Callable[[], None], log: BoundLogger
    ) -> None:
        """keeper: of the relay's certificate; None: connect in plaintext, whatever the peer says."""
        self.peer = peer
        self.state: NodeState = UNKNOWN_NODE_STATE  # until the first attempt has an end
        self.reason = "is being connected to"
        self.line: Line | None = None
        self.generation = 0  # of the line, of all lines of the process; 0: there has been none
        self._keeper = keeper if peer.server_name else None
        self._checks = checks
        self._changed = changed
        self._log = log.bind(peer=peer.name, address=peer.address)

    async def run(self) -> None:
        """Keep it up, for ever."""
        delay = BACKOFF_FIRST
        try:
            while True:
                if reason := await self._dial():
                    self._lose(reason)
                    await asyncio.sleep(delay * random.uniform(0.8, 1.2))
                    delay = min(2 * delay, BACKOFF_MOST)
                    continue
                delay = BACKOFF_FIRST
                await self._stay()
        finally:
            self._drop_line()

    async def _stay(self) -> None:
        """While the peer answers; a new certificate makes a new line first."""
        while self.line is not None:
            lost = asyncio.create_task(until_lost(self.line.channel, self._checks))
            renewed = asyncio.create_task(self._renewed(self.line.material))
            try:
                await asyncio.wait({lost, renewed}, return_when=asyncio.FIRST_COMPLETED)
                if lost.done():
                    self._lose(lost.result())
                elif reason := await self._dial():
                    self._log.warning("not connected anew with the renewed certificate", reason=reason)
                    await asyncio.wait({lost}, timeout=self._checks.interval)
            finally:
                lost.cancel()
                renewed.cancel()

    async def _renewed(self, material: Material | None) -> None:
        """Wait for another certificate."""
        if self._keeper is None:
            await asyncio.Event().wait()
        else:
            await self._keeper.changed(material)

    async def _dial(self) -> str:
        """Make a new line; why it can't be had (then the old one stays), or nothing."""
        if not self.peer.address:
            return "has no address yet"
        material = self._keeper.current if self._keeper is not None else None
        if self._keeper is not None and material is None:
            return "the relay has no certificate yet"
        channel = open_channel(self.peer.address, material, self.peer.server_name)
        try:
            reason = await check(channel, self._checks.first)
        except BaseException:
            await channel.close()
            raise
        if reason:
            await channel.close()
            return reason
        if self.line is not None:
            self.line.retire()
        self.line = Line(channel, material)
        self.generation = next(_generations)
        self._log.info("peer connected", tls=material is not None)
        self._set(NODE_CONNECTED, "")
        return ""

    def _lose(self, reason: str) -> None:
        self._drop_line()
        if self.state != NODE_UNAVAILABLE or self.reason != reason:
            self._log.warning("peer is unavailable", reason=reason)
        self._set(NODE_UNAVAILABLE, reason)

    def _drop_line(self) -> None:
        if self.line is not None:
            self.line.close()
            self.line = None

    def _set(self, state: NodeState, reason: str) -> None:
        before = (self.state, self.reason, self.generation)
        self.state, self.reason = state, reason
        if state == NODE_CONNECTED or before != (state, reason, self.generation):
            self._changed()
