"""Attaching by clsact and tcx, in a network namespace of the test's own."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ciliate.kernel.errors import KernelError
from ciliate.maps.registry import MapRegistry
from ciliate.programs.attach import (
    Hook,
    attach_clsact,
    attach_tcx,
    clsact_messages,
    detach_clsact,
    detach_tcx,
    list_clsact,
    list_tcx,
)
from ciliate.programs.object import ProgramSet

IFINDEX = 1000
Within = Callable[[Callable[[], None]], None]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def make_pair() -> None:
    ip("link", "add", "va", "index", str(IFINDEX), "type", "veth", "peer", "name", "vb")


@pytest.fixture
def within() -> Iterator[Within]:
    """Runs a function in a thread that has a network namespace with a veth pair."""

    def enter() -> None:
        assert ctypes.CDLL(None).unshare(0x40000000) == 0
        make_pair()

    with ThreadPoolExecutor(1, initializer=enter) as pool:
        yield lambda action: pool.submit(action).result(timeout=30)


@pytest.fixture
def programs(registry: MapRegistry, core_object: Path) -> Iterator[ProgramSet]:
    with ProgramSet.load(core_object, registry) as loaded:
        yield loaded


def test_a_filter_is_attached_replaced_and_detached(within: Within, programs: ProgramSet) -> None:
    first, second = programs.program("pass"), programs.program("answer")

    def body() -> None:
        assert list_clsact(IFINDEX) == []
        assert not detach_clsact(IFINDEX)
        attach_clsact(IFINDEX, first)
        attach_clsact(IFINDEX, first)
        (found,) = list_clsact(IFINDEX)
        assert (found.priority, found.handle, found.name, found.program_id) == (1, 1, "pass", first.info().id)
        attach_clsact(IFINDEX, second)
        attach_clsact(IFINDEX, first, priority=2, handle=9)
        assert [(one.name, one.priority, one.handle) for one in list_clsact(IFINDEX)] == [
            ("answer", 1, 1),
            ("pass", 2, 9),
        ]
        assert detach_clsact(IFINDEX)
        assert not detach_clsact(IFINDEX)
        assert detach_clsact(IFINDEX, 2, 9)

    within(body)


def test_attaching_to_nothing_or_the_wrong_thing_is_explained(within: Within, programs: ProgramSet) -> None:
    def body() -> None:
        with pytest.raises(KernelError, match=r"program pass to the ingress of interface 7777: .*no such interface"):
            attach_clsact(7777, programs.program("pass"))
        with pytest.raises(KernelError, match="not of type tc"):
            attach_clsact(IFINDEX, programs.program("emit"))
        assert not detach_clsact(7777)
        with pytest.raises(KernelError, match="interface or cgroup 7777"):
            attach_tcx(7777, programs.program("pass"), Hook.INGRESS)

    within(body)


def test_packed_messages_carry_their_sequence_numbers(programs: ProgramSet) -> None:
    qdisc, new_filter = clsact_messages(IFINDEX, programs.program("pass"), sequence=41)
    assert int.from_bytes(qdisc[8:12], "little") == 41
    assert int.from_bytes(new_filter[8:12], "little") == 42
    assert len(qdisc) % 4 == len(new_filter) % 4 == 0


def test_a_pinned_link_is_kept_and_its_program_replaced(within: Within, programs: ProgramSet, root: Path) -> None:
    pin = root / "link"

    def body() -> None:
        attach_tcx(IFINDEX, programs.program("pass"), Hook.INGRESS, pin).close()
        number = list_tcx(IFINDEX, Hook.INGRESS)
        assert number == [programs.program("pass").info().id]
        link = attach_tcx(IFINDEX, programs.program("answer"), Hook.INGRESS, pin)
        assert list_tcx(IFINDEX, Hook.INGRESS) == [programs.program("answer").info().id]
        link.update(programs.program("pass"))
        assert list_tcx(IFINDEX, Hook.INGRESS) == number
        link.close()
        assert detach_tcx(pin)
        assert not detach_tcx(pin)
        assert list_tcx(IFINDEX, Hook.INGRESS) == []

    within(body)


def test_a_pinned_link_of_another_place_is_replaced(within: Within, programs: ProgramSet, root: Path) -> None:
    pin, program = root / "link", programs.program("pass")

    def body() -> None:
        attach_tcx(IFINDEX, program, Hook.INGRESS, pin).close()
        attach_tcx(IFINDEX, program, Hook.EGRESS, pin).close()
        assert (list_tcx(IFINDEX, Hook.INGRESS), len(list_tcx(IFINDEX, Hook.EGRESS))) == ([], 1)
        ip("link", "del", "va")
        make_pair()
        attach_tcx(IFINDEX, program, Hook.EGRESS, pin).close()
        assert len(list_tcx(IFINDEX, Hook.EGRESS)) == 1
        assert detach_tcx(pin)

    within(body)
