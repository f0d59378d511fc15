"""Steady traffic in a lab, allowed and denied, in both families, of which every packet is accounted for.

    cast = assemble(lab)
    with Steady(cast, tmp_path) as steady:
        ...                             # break something
        figures = steady.stop()
    figures.check()                     # nothing lost, nothing wrong

`server` has three ports; a policy lets pods with app=friend, as `friend` is, reach the first two; the third is denied
to all, and all three to `stranger`. What the server answers passes by conntrack alone, since it may open nothing
itself: so a lost conntrack entry is a lost packet.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ciliate_lab import namespaces

from tests.node.accounting import Outcome, Records, delivered
from tests.node.faults.stream import Stream
from tests.node.labs import Lab, Pod, echo
from tests.node.traffic import PORT, Recorded, Traffic

NAMESPACE = "steady"
ALLOWED_PORTS, PORTS = 2, 3
UDP_RATE = 300
"""Packets a second of each sender."""
CONNECTIONS_RATE = 25
DENIED_LIMIT_MS = 200
STREAM_PORT, CLOSED_PORT = 7300, 7301
"""Ports of the server on which an echo answers all the time: open to friends, and to nobody."""


@dataclass(frozen=True)
class Figures:
    """What became of the traffic of one run."""

    sent: int
    lost: int
    replies: int
    replies_lost: int
    connections: int
    connections_lost: int
    denied: int  # packets and connections that must not get through
    wrong: int  # of those, the ones that did, or that were refused instead of dropped
    messages: int  # over TCP connections that lived through it all
    longest_pause_ms: float
    broken: tuple[str, ...]  # what such a connection died of

    def check(self) -> None:
        """AssertionError unless all of it is as policy says."""
        assert self.lost == self.replies_lost == self.connections_lost == self.wrong == 0, str(self)
        assert self.broken == (), str(self)
        assert min(self.sent, self.connections, self.denied, self.messages) > 0, str(self)

    def __str__(self) -> str:
        return (
            f"{self.sent} packets sent, {self.lost} lost; {self.replies} replies, {self.replies_lost} lost;"
            f" {self.connections} connections, {self.connections_lost} lost; {self.denied} denied packets and"
            f" connections, {self.wrong} wrong; {self.messages} messages on open connections, longest pause"
            f" {self.longest_pause_ms:.0f} ms{''.join(f'; {reason}' for reason in self.broken)}"
        )


@dataclass(frozen=True)
class Cast:
    """The pods of the traffic."""

    server: Pod
    friend: Pod
    stranger: Pod


def policy() -> dict[str, Any]:
    """Friends may reach the first ports of the server, and the server itself may open nothing."""
    ranges = [(PORT, PORT + ALLOWED_PORTS - 1), (STREAM_PORT, STREAM_PORT)]
    ports = [
        {"port": str(first), "endPort": last, "protocol": protocol}
        for first, last in ranges
        for protocol in ("TCP", "UDP")
    ]
    nobody = {"toEndpoints": [{"matchLabels": {"app": "nobody"}}]}
    rule = {"fromEndpoints": [{"matchLabels": {"app": "friend"}}], "toPorts": [{"ports": ports}]}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"namespace": NAMESPACE, "name": "steady"},
        "spec": {"endpointSelector": {"matchLabels": {"app": "server"}}, "ingress": [rule], "egress": [nobody]},
    }


def assemble(lab: Lab) -> Cast:
    """Make the pods and the policy; they stay until the lab goes."""
    answering = [f"{STREAM_PORT}/tcp", f"{CLOSED_PORT}/tcp"]
    server = lab.run("server", *echo(*answering), namespace=NAMESPACE, labels=["app=server"], ports=answering)
    friend = lab.run("friend", "sleep", "inf", namespace=NAMESPACE, labels=["app=friend"])
    stranger = lab.run("stranger", "sleep", "inf", namespace=NAMESPACE, labels=["app=stranger"])
    lab.apply(policy())
    return Cast(server, friend, stranger)


class Steady:
    """The traffic of one run."""

    def __init__(self, cast: Cast, folder: Path, seconds: float = 600) -> None:
        """folder: for its records; seconds: how long it lasts at most."""
        self._cast = cast
        self._seconds = seconds
        self._traffic, self._strangers = (Traffic(_made(folder / name)) for name in ("traffic", "strangers"))
        self._streams = [Stream(cast.friend.netns, address, STREAM_PORT) for address in cast.server.addresses]

    def __enter__(self) -> Self:
        server, friend, stranger = (
            namespaces.path(p.netns) for p in (self._cast.server, self._cast.friend, self._cast.stranger)
        )
        for address, family in zip(self._cast.server.addresses, (4, 6), strict=True):
            self._traffic.serve([server], family=family, ports=PORTS, echo=True)
            for space in (friend, stranger):
                self._traffic.send(
                    space, address, ports=PORTS, flows=PORTS, rate=UDP_RATE, echoes=True, seconds=self._seconds
                )
            self._traffic.connect(friend, [address], ports=PORTS, rate=CONNECTIONS_RATE, seconds=self._seconds)
            self._strangers.connect(
                stranger, [address], ports=PORTS, rate=CONNECTIONS_RATE, limit_ms=DENIED_LIMIT_MS, seconds=self._seconds
            )
        for stream in self._streams:
            stream.start()
        return self

    def stop(self) -> Figures:
        """End it; what became of it."""
        for stream in self._streams:
            stream.stop()
        strangers = self._strangers.stop()
        return _figures(self._traffic.stop(), strangers.connections, self._streams)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self._streams:
            stream.stop()
        self._strangers.__exit__(kind, value, trace)
        self._traffic.__exit__(kind, value, trace)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _figures(recorded: Recorded, strangers: Records, streams: list[Stream]) -> Figures:
    sent, received, friends = recorded.sent, recorded.received, recorded.connections
    assert (sent["ended"] != 0).all(), "a sending pod itself refused packets"
    may = (sent["sender"] % 2 == 0) & (sent["flow"] < ALLOWED_PORTS)  # senders: friend, stranger, friend, stranger
    there = delivered(sent, received)
    replies = received[(received["sender"] % 2 == 0) & (received["flow"] < ALLOWED_PORTS)]
    answered, silent = (friends["outcome"] == outcome for outcome in (Outcome.ANSWERED, Outcome.TIMED_OUT))
    open_port = friends["target"] < ALLOWED_PORTS
    return Figures(
        sent=int(may.sum()),
        lost=int((may & ~there).sum()),
        replies=len(replies),
        replies_lost=int((~delivered(replies, recorded.echoed)).sum()),
        connections=int(open_port.sum()),
        connections_lost=int((open_port & ~answered).sum()),
        denied=int((~may).sum() + (~open_port).sum() + len(strangers)),
        wrong=int(
            (~may & there).sum() + (~open_port & ~silent).sum() + (strangers["outcome"] != Outcome.TIMED_OUT).sum()
        ),
        messages=sum(stream.messages for stream in streams),
        longest_pause_ms=1000 * max(stream.longest_pause for stream in streams),
        broken=tuple(stream.broken for stream in streams if stream.broken),
    )
