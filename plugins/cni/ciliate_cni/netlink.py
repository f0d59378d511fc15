"""rtnetlink in packed messages: many in one sendmsg, only the last acknowledged, every error with its message's name.

The kernel takes the messages of one datagram in order and answers each that fails, asked or not; so one exchange is
enough to know all that went wrong. (For what is not done once a pod, use pyroute2.)
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import NamedTuple

from ciliate.kernel.errors import KernelError

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH = 28
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
CREATE, EXCLUSIVE, REPLACE = 0x400, 0x200, 0x100
_ERROR, _DONE = 2, 3
_ACK_TLVS = 0x200
_TEXT = 1  # NLMSGERR_ATTR_MSG
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT = 270, 10, 11, 12
_RECEIVE_TIMEOUT = struct.pack("ll", 10, 0)

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
NESTED = 0x8000


class Message(NamedTuple):
    """One request without its header; `what` names it in errors, as a gerund phrase."""

    what: str
    kind: int
    flags: int
    body: bytes


class NetlinkError(KernelError):
    """A message that the kernel refused; `message` is its place in the batch, `others` how many more it refused."""

    def __init__(self, number: int, what: str, how: str, message: int, others: int = 0) -> None:
        super().__init__(number, what, how)
        self.message = message
        self.others = others


def unpacked(what: str, raw: bytes) -> Message:
    """A message that somebody else has packed, for a batch of ours."""
    length, kind, flags, _, _ = _HEADER.unpack_from(raw)
    return Message(what, kind, flags & ~(REQUEST | ACK), raw[_HEADER.size : length])


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def number(kind: int, value: int) -> bytes:
    """An attribute of 32 bits."""
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    """An attribute that is a string."""
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes in bytes, as (kind, value)."""
    while at + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += length + (-length % 4)


class NetlinkSocket:
    """An rtnetlink socket of the network namespace that the calling thread is in when it makes one."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        for option in (_CAP_ACK, _EXT_ACK, _STRICT):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _RECEIVE_TIMEOUT)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._sequence = 0

    def __enter__(self) -> NetlinkSocket:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def send(self, messages: Sequence[Message]) -> None:
        """Carry out messages in order. Raises NetlinkError for the first refused; those after it were carried out."""
        errors = self.errors(messages)
        if errors:
            errors[0].others = len(errors) - 1
            raise errors[0]

    def errors(self, messages: Sequence[Message]) -> list[NetlinkError]:
        """Carry out messages in order; what the kernel refused of them."""
        first = self._sequence + 1
        last = self._sequence = self._sequence + len(messages)
        parts = []
        for place, message in enumerate(messages):
            flags = message.flags | (REQUEST | ACK if first + place == last else REQUEST)
            parts.append(_HEADER.pack(16 + len(message.body), message.kind, flags, first + place, 0))
            parts.append(message.body + b"\0" * (-len(message.body) % 4))
        self._socket.send(b"".join(parts))
        found: list[NetlinkError] = []
        while True:
            for sequence, kind, flags, body in self._answers():
                if kind != _ERROR or not first <= sequence <= last:
                    continue  # an answer to an exchange that was given up
                code, how = _refusal(flags, body)
                if code:
                    place = sequence - first
                    found.append(NetlinkError(code, messages[place].what, how, place))
                if sequence == last:
                    return found

    def ask(self, message: Message) -> list[bytes]:
        """The bodies of what the kernel answers a question; of a dump, all of them. Raises NetlinkError."""
        self._sequence += 1
        dump = message.flags & DUMP == DUMP
        flags = message.flags | (REQUEST if dump else REQUEST | ACK)
        self._socket.send(_HEADER.pack(16 + len(message.body), message.kind, flags, self._sequence, 0) + message.body)
        found: list[bytes] = []
        while True:
            for sequence, kind, answer_flags, body in self._answers():
                if sequence != self._sequence:
                    continue
                if kind == _DONE:
                    return found
                if kind == _ERROR:
                    code, how = _refusal(answer_flags, body)
                    if code:
                        raise NetlinkError(code, message.what, how, 0)
                    return found
                found.append(body)

    def _answers(self) -> list[tuple[int, int, int, bytes]]:
        try:
            data = self._socket.recv(1 << 17)
        except BlockingIOError as error:
            raise KernelError(errno.ETIMEDOUT, "waiting for the kernel's answer on a netlink socket") from error
        found, at = [], 0
        while at + 16 <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
            found.append((sequence, kind, flags, data[at + 16 : at + length]))
            at += length + (-length % 4)
        return found


def _refusal(flags: int, body: bytes) -> tuple[int, str]:
    """The errno in an answer (0: none) and the kernel's own words, if it has some."""
    code = -struct.unpack_from("=i", body)[0]
    if not code or not flags & _ACK_TLVS:
        return code, ""
    words = [value.rstrip(b"\0").decode(errors="replace") for kind, value in attributes(body, 20) if kind == _TEXT]
    return code, f"the kernel says: {words[0]}" if words else ""
