"""BTF as clang writes it, and against dtypes: structs, unions, arrays, typedefs, damage."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from ciliate.kernel.btf import Btf, BtfError, BtfKind
from ciliate.programs.elf import ElfObject
from ciliate.programs.layouts import LayoutMismatchError, check_layout, dtype_of
from hypothesis import given
from hypothesis import strategies as st

SOURCE = """
typedef unsigned short __be16; typedef unsigned int u32; typedef unsigned char u8;
struct inner { u32 a; __be16 b; u8 c[2]; };
struct outer {
    struct inner first; const u8 address[16];
    union { u32 word; u8 octets[4]; };
    struct { short low; short high; };
    long pad1; u32 bits : 3, more : 5; enum { A, B } e; void *pointer;
};
struct outer used; volatile const int setting = 3; volatile const u8 many[5];
"""
INNER = np.dtype([("a", "<u4"), ("b", ">u2"), ("c", "u1", 2)])


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("btf")
    (folder / "x.c").write_text(SOURCE)
    subprocess.run(["clang-19", "-target", "bpf", "-g", "-O2", "-c", "x.c", "-o", "x.o"], cwd=folder, check=True)
    with ElfObject(folder / "x.o") as elf:
        return elf.btf.raw


@pytest.fixture(scope="module")
def btf(raw: bytes) -> Btf:
    return Btf(raw)


def number(btf: Btf, name: str) -> int:
    return next(i for i, one in enumerate(btf.types) if one.name == name and one.kind is BtfKind.STRUCT)


def test_sections_name_their_variables(btf: Btf) -> None:
    section = btf.section(".rodata")
    assert section is not None
    assert {member.name: btf.size(member.type) for member in section.members} == {"setting": 4, "many": 5}
    assert btf.section(".nothing") is None


def test_members_have_offsets_sizes_and_bits(btf: Btf) -> None:
    outer = btf.resolve(number(btf, "outer"))
    by_name = {member.name: member for member in outer.members}
    assert (by_name["address"].offset, btf.size(by_name["address"].type)) == (8, 16)
    assert (by_name["more"].bits, by_name["e"].offset) == (5, 44)
    assert btf.size(by_name["pointer"].type) == 8


def test_a_dtype_that_is_the_struct_passes(btf: Btf) -> None:
    check_layout(btf, number(btf, "inner"), INNER, "x")
    assert dtype_of(btf, number(btf, "inner"), 8) == INNER


def outer_dtype(**changes: tuple[object, int]) -> np.dtype[np.void]:
    fields: dict[str, tuple[object, int]] = {
        "first": (INNER, 0), "address": (("u1", 16), 8), "octets": (("u1", 4), 24),
        "low": ("<i2", 28), "high": ("<i2", 30), "e": ("<u4", 44), "pointer": ("<u8", 48),
    }  # fmt: skip
    fields |= changes
    names = list(fields)
    formats, offsets = [fields[name][0] for name in names], [fields[name][1] for name in names]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": 56})


def test_bit_fields_are_refused_as_only_in_c(btf: Btf) -> None:
    with pytest.raises(LayoutMismatchError, match=r"^x: C has struct outer of 56 bytes.*field bits at 40 is only in C"):
        check_layout(btf, number(btf, "outer"), outer_dtype(), "x")
    with pytest.raises(LayoutMismatchError, match="field bits is a bit field"):
        check_layout(btf, number(btf, "outer"), outer_dtype(bits=("<u4", 40)), "x")


def test_differences_inside_a_nested_struct_are_found(btf: Btf) -> None:
    wrong = np.dtype([("a", "<u4"), ("b", "<u2"), ("c", "u1", 2)])
    with pytest.raises(LayoutMismatchError, match="first: field b is in network order in C"):
        check_layout(btf, number(btf, "outer"), outer_dtype(first=(wrong, 0)), "x")


def test_every_member_of_an_unnamed_struct_is_needed(btf: Btf) -> None:
    dtype = outer_dtype()
    assert dtype.fields is not None
    without = {name: (field[0], field[1]) for name, field in dtype.fields.items() if name != "high"}
    names = list(without)
    formats, offsets = [without[name][0] for name in names], [without[name][1] for name in names]
    reduced = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": 56})
    with pytest.raises(LayoutMismatchError, match="field high at 30 is only in C"):
        check_layout(btf, number(btf, "outer"), reduced, "x")


@given(st.data())
def test_damaged_btf_is_refused_or_read_but_never_hangs(raw: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(raw) - 1))
    damaged = bytearray(raw)
    damaged[position] = data.draw(st.integers(0, 255))
    try:
        parsed = Btf(bytes(damaged[: data.draw(st.integers(0, len(raw)))]))
        for i in range(len(parsed.types)):
            parsed.size(i)
    except BtfError:
        pass
