"""Which nodes there are, as a peer service tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc.aio
from ciliate.health import Health
from structlog.stdlib import BoundLogger

from ciliate_hubble.api.peer_pb2 import PEER_ADDED, PEER_DELETED, PEER_UPDATED, ChangeNotification, NotifyRequest
from ciliate_hubble.api.peer_pb2_grpc import PeerStub
from ciliate_hubble.certificates.material import Keeper
from ciliate_hubble.certificates.names import server_name
from ciliate_hubble.relay.channels import Checks, check, open_channel, reason_of, until_lost

BACKOFF_FIRST, BACKOFF_MOST = 0.1, 5.0
SETTLE = 5.0
"""Seconds after the first word of a new stream in which every node must have been told again, or it is gone."""
DEFAULT_PORT = 4244
CONDITION = "peer-service"


@dataclass(frozen=True)
class Peer:
    """A node's server."""

    name: str  # <cluster>/<node>, or <node>
    address: str  # host:port; empty if it has none yet
    server_name: str = ""  # in its certificate; empty: it speaks plaintext


def read_peer(told: ChangeNotification) -> Peer:
    """The peer that a notification is about."""
    address = told.address
    if address and (address.count(":") > 1 and not address.endswith("]") and "]:" not in address):
        address = f"[{address}]"  # IPv6 without a port
    if address and (":" not in address or address.endswith("]")):
        address = f"{address}:{DEFAULT_PORT}"
    return Peer(told.name, address, told.tls.server_name)


class PeerSet(Protocol):
    """Who is told of nodes."""

    def put(self, peer: Peer) -> None:
        """A node is new, or has changed."""

    def drop(self, name: str) -> None:
        """A node is gone."""


class PeerFollower:
    """Follows one peer service, and another one when that fails; what is known stays known meanwhile."""

    def __init__(
        self,
        services: Sequence[str],
        cluster: str,
        keeper: Keeper | None,
        checks: Checks,
        peers: PeerSet,
        health: Health,
        log: BoundLogger,
    ) -> None:
        """keeper: of the certificate for services on TCP; None: plaintext."""
        self._services = services
        self._server_name = server_name("hubble-peer", cluster)
        self._keeper = keeper
        self._checks = checks
        self._peers = peers
        self._health = health
        self._log = log
        self._known: dict[str, Peer] = {}
        self._listed = False  # whether a service has ever told
        self.reason = f"{', '.join(services)}: has not been asked yet"  # why none is followed; empty if one is
        health.not_ready(self.reason, CONDITION)

    def lacking(self) -> str:
        """Why no node is known yet; empty once a service has told of them."""
        return "" if self._listed else self.reason

    async def run(self) -> None:
        """Follow, for ever."""
        delay, number = BACKOFF_FIRST, 0
        while True:
            told = await self._try(self._services[number % len(self._services)])
            number += 1
            if told:
                delay = BACKOFF_FIRST
            if told or number % len(self._services) == 0:
                await asyncio.sleep(delay)
                delay = min(2 * delay, BACKOFF_MOST)

    async def _try(self, service: str) -> bool:
        """Follow one service until it fails; whether it told anything."""
        material = None
        if self._keeper is not None and not service.startswith("unix:"):
            material = await self._keeper.changed(None)
        channel = open_channel(service, material, self._server_name)
        replay = Replay(set(self._known))
        try:
            reason = await check(channel, self._checks.first) or await self._listen(channel, service, replay)
        finally:
            replay.end()
            await channel.close()
        self.reason = f"{service}: {reason}"
        self._health.not_ready(self.reason, CONDITION)
        return replay.begun

    async def _listen(self, channel: grpc.aio.Channel, service: str, replay: Replay) -> str:
        """Read the service's stream while the service answers; why it does so no more."""
        tasks = [
            asyncio.create_task(self._read(channel, service, replay)),
            asyncio.create_task(until_lost(channel, self._checks)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, channel: grpc.aio.Channel, service: str, replay: Replay) -> str:
        """Take over what a service tells until its stream ends; why it did."""
        stub: Any = PeerStub(channel)
        try:
            async for told in stub.Notify(NotifyRequest()):
                if not replay.begun:
                    replay.begin(self._gone)
                    self._listed, self.reason = True, ""
                    self._health.ready(CONDITION)
                    self._log.info("peer service followed", service=service)
                self._take(told)
                replay.unconfirmed.discard(told.name)
        except grpc.aio.AioRpcError as error:
            return reason_of(error)
        return "the service has ended its stream"

    def _take(self, told: ChangeNotification) -> None:
        if told.type in (PEER_ADDED, PEER_UPDATED):
            peer = read_peer(told)
            if self._known.get(peer.name) != peer:
                self._known[peer.name] = peer
                self._peers.put(peer)
        elif told.type == PEER_DELETED:
            self._gone([told.name])

    def _gone(self, names: Iterable[str]) -> None:
        for name in names:
            if self._known.pop(name, None) is not None:
                self._log.info("peer is gone", peer=name)
                self._peers.drop(name)


class Replay:
    """The first part of a stream, in which every node is told anew; it has no end that could be seen but silence."""

    def __init__(self, known: set[str]) -> None:
        self.unconfirmed = known  # those that have not been told of yet
        self._timer: asyncio.TimerHandle | None = None

    @property
    def begun(self) -> bool:
        """Whether there has been a first word."""
        return self._timer is not None

    def begin(self, gone: Callable[[Iterable[str]], None]) -> None:
        """With the first word. gone: told, in time, of those that were not confirmed."""
        self._timer = asyncio.get_running_loop().call_later(SETTLE, lambda: gone(sorted(self.unconfirmed)))

    def end(self) -> None:
        """The stream has ended: nobody is gone because of it."""
        if self._timer is not None:
            self._timer.cancel()
