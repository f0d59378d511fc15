"""What C and Python share outside of maps: the event record, the collector's context, reasons, settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_type_hints

import ciliate
import numpy as np
import pytest
from ciliate.kernel.btf import BtfKind
from ciliate.model import conntrack, event
from ciliate.model.datapath import Settings
from ciliate.model.endpoint import peer_slot
from ciliate.model.reasons import DropReason
from ciliate.programs.elf import ElfObject
from ciliate.programs.layouts import check_layout

from tests.bpf.datapath.families import Family
from tests.bpf.datapath.node import PODS, Node, packed

A, B = PODS[:2]
HEADERS = Path(ciliate.__file__).parent / "_bpf" / "include" / "ciliate"


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("event", event.EVENT), ("collect_context", conntrack.COLLECT_CONTEXT)],
    ids=["event", "collect"],
)
def test_structs_outside_of_maps_agree(program_object: Path, name: str, dtype: np.dtype[np.void]) -> None:
    with ElfObject(program_object) as elf:
        (number,) = [n for n, found in enumerate(elf.btf.types) if found.name == name and found.kind is BtfKind.STRUCT]
        check_layout(elf.btf, number, dtype, name)


def test_reasons_agree(program_object: Path) -> None:
    text = (HEADERS / "reasons.h").read_text()
    assert {(name, int(number)) for name, number in re.findall(r"#define DROP_(\w+) (\d+)", text)} == {
        (reason.name, int(reason)) for reason in DropReason
    }


def test_settings_agree() -> None:
    text = (HEADERS / "config.h").read_text()
    assert set(re.findall(r"^SETTING \w+ (\w+)", text, re.MULTILINE)) == set(get_type_hints(Settings))


def test_source_files_agree() -> None:
    text = (HEADERS / "layouts.h").read_text()
    names = re.findall(r"FILE_(\w+),", text)
    assert names == [source.name for source in event.SourceFile]


def test_peer_slots_agree(node: Node, family: Family) -> None:
    """The kernel's slot of an address is Python's: bumping that one alone has an established flow judged anew."""
    node.send(A, family.udp(A, B))
    stamp = int(node.flow("conntrack_new")["word"]) & 0xFFFFFFFF
    node.peer_stamps[peer_slot(packed(family.of(B)))] += np.uint32(5)
    node.send(A, family.udp(A, B))
    assert int(node.flow("conntrack_new")["word"]) & 0xFFFFFFFF == (stamp + 5) & 0xFFFFFFFF
