"""What a program set must do with known packets before anything of a node runs it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ciliate.programs.object import ProgramSet

_DROP, _PASS = 2, 0
_ALL_NODES4 = bytes([224, 0, 0, 1])
_ALL_NODES6 = bytes.fromhex("ff020000000000000000000000000001")
_COLLECT = struct.Struct("=IIIIQ")  # struct collect_context: count, table, deleted, kept, now


class SelfTestError(RuntimeError):
    """A program set does not do what it must; the text says with which packet."""


@dataclass(frozen=True)
class Case:
    """A packet and what a program makes of it. None of them is counted, told or remembered, but the first."""

    what: str
    program: str
    frame: bytes
    action: int


def _frame(ether_type: int, payload: bytes) -> bytes:
    return bytes(12) + struct.pack("!H", ether_type) + payload + bytes(max(0, 46 - len(payload)))


def _ipv4() -> bytes:
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 17, 0, bytes([192, 0, 2, 1]), _ALL_NODES4)


def _ipv6() -> bytes:
    return struct.pack("!IHBB", 6 << 28, 8, 17, 64) + bytes.fromhex("20010db8" + "0" * 23 + "1") + _ALL_NODES6


_UDP = struct.pack("!HHHH", 9, 9, 8, 0)
CASES = (
    Case("a packet of no endpoint", "from_pod", _frame(0x0800, _ipv4() + _UDP), _DROP),
    Case("ARP of the host", "from_host", _frame(0x0806, bytes(28)), _PASS),
    Case("IPv4 to all nodes of a link", "from_host", _frame(0x0800, _ipv4() + _UDP), _PASS),
    Case("IPv6 to all nodes of a link", "from_host", _frame(0x86DD, _ipv6() + _UDP), _PASS),
)


def run(programs: ProgramSet) -> None:
    """Raises SelfTestError, or LoadError if a program is missing."""
    for case in CASES:
        answer = programs.program(case.program).test_run(case.frame).retval
        if answer != case.action:
            raise SelfTestError(f"{case.program} answers {answer} to {case.what}; {case.action} is wanted")
    collected = programs.program("conntrack_collect").test_run(ctx=_COLLECT.pack(0, 0, 0, 0, 0))
    _, _, deleted, kept, now = _COLLECT.unpack(collected.ctx[: _COLLECT.size])
    if deleted or kept or not now:
        raise SelfTestError(f"conntrack_collect, asked for the time, says {now}; {deleted} deleted, {kept} kept")
