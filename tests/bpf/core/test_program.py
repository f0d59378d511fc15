"""Program sets: loaded on the registry's maps, checked, run, pinned, adopted after a restart."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from ciliate.maps.registry import MapRegistry
from ciliate.programs.elf import ElfObject, LoadError, VerifierError
from ciliate.programs.layouts import LayoutMismatchError
from ciliate.programs.object import ProgramSet, unpin

from tests.bpf.core.conftest import DECLARED, compile_object

PACKET = bytes(12) + b"\x08\x00" + bytes(46)
PROGRAMS = ["answer", "emit", "emit_other", "pass"]


@pytest.fixture
def declared(registry: MapRegistry) -> MapRegistry:
    registry.declare(DECLARED, "policy")
    return registry


def test_a_program_reads_the_registrys_maps_and_its_constants(declared: MapRegistry, core_object: Path) -> None:
    with ProgramSet.load(core_object, declared, {"mark": 100, "offset": -2, "wanted": b"\1\2\3\4"}) as programs:
        run = programs.program("answer").test_run(PACKET, ctx=bytes(192))
        assert (run.retval, run.data) == (4, PACKET)
        assert int.from_bytes(run.ctx[8:12], "little") == 98
        declared.open("declared", writable=True).update((128, bytes(16)), (55, 0, 0))
        assert programs.program("answer").test_run(PACKET).retval == 55
        assert programs.program("answer").test_run(PACKET, repeat=1000).duration_ns > 0


def test_maps_that_nobody_declared_are_made_and_readable(declared: MapRegistry, core_object: Path) -> None:
    with ProgramSet.load(core_object, declared) as programs:
        assert set(declared.names()) == {"declared", "records", "runs"}
        assert declared.owner("runs") == "programs"
        programs.program("answer").test_run(PACKET, repeat=10)
        runs = declared.open("runs").lookup(0)
        assert runs is not None
        assert runs.sum() == 10


def test_a_syscall_program_takes_and_gives_its_context(declared: MapRegistry, core_object: Path) -> None:
    burst = np.dtype([("first", "<u8"), ("count", "<u4"), ("lost", "<u4")])
    with ProgramSet.load(core_object, declared) as programs:
        ctx = np.array([(1, 5, 0)], burst).tobytes()
        assert programs.program("emit").test_run(ctx=ctx).ctx == ctx


@pytest.mark.parametrize(
    ("value", "difference"),
    [
        (np.dtype([("identity", "<u4"), ("port", "<u2"), ("pad", "<u2")]), "field port is in network order in C"),
        (
            np.dtype([("identity", "<u4"), ("prt", ">u2"), ("pad", "<u2")]),
            "field prt at 4 is only in Python; field port",
        ),
        (np.dtype([("identity", "<u4"), ("port", ">u4")]), "port is 2 bytes at 4 in C, 4 bytes at 4 in Python"),
        (np.dtype([("identity", "<u4"), ("port", ">u2")]), "sizes differ, 8 in C and 6 in Python"),
        (
            np.dtype([("port", ">u2"), ("pad", "<u2"), ("identity", "<u4")]),
            "identity is 4 bytes at 0 in C, 4 bytes at 4",
        ),
    ],
    ids=["byte order", "name", "field size", "size", "offset"],
)
def test_a_dtype_that_is_not_the_c_struct_is_refused(
    registry: MapRegistry, core_object: Path, value: np.dtype[np.void], difference: str
) -> None:
    registry.declare(dataclasses.replace(DECLARED, value=value), "policy")
    with pytest.raises(LayoutMismatchError, match="map declared: value: C has struct pair_value") as refused:
        ProgramSet.load(core_object, registry)
    assert difference in str(refused.value)
    assert registry.names() == []


@pytest.mark.parametrize(
    ("constants", "reason"),
    [
        ({"nope": 1}, "has no constant nope in .rodata: it has mark, offset, wanted"),
        ({"mark": 1 << 32}, "constant mark .unsigned int, 4 bytes.: 4294967296 does not fit"),
        ({"wanted": b"1"}, "constant wanted .array, 4 bytes.: 1 bytes given"),
        ({"mark": -1}, "-1 does not fit"),
    ],
    ids=["unknown", "too large", "short", "negative"],
)
def test_a_wrong_constant_is_named(
    declared: MapRegistry, core_object: Path, constants: dict[str, int | bytes], reason: str
) -> None:
    with pytest.raises(LoadError, match=reason):
        ProgramSet.load(core_object, declared, constants)


def test_a_refusal_of_the_verifier_shows_the_end_of_its_log(registry: MapRegistry, tmp_path: Path) -> None:
    source = tmp_path / "bad.bpf.c"
    source.write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        'SEC("tc") int bad(struct __sk_buff *skb) { return *(volatile int *)(long)skb->data; }\n'
        'char _license[] SEC("license") = "GPL";\n'
    )
    with pytest.raises(VerifierError, match="the verifier refused it") as refused:
        ProgramSet.load(compile_object(source, tmp_path / "bad.bpf.o"), registry)
    assert "invalid access to packet" in str(refused.value)
    assert "BEGIN PROG LOAD LOG" in refused.value.log


def test_what_is_no_object_is_refused(registry: MapRegistry, tmp_path: Path) -> None:
    (tmp_path / "text.o").write_text("not ELF")
    with pytest.raises(LoadError, match=r"text\.o can't be opened"):
        ProgramSet.load(tmp_path / "text.o", registry)
    with pytest.raises(LoadError, match="can't be opened: build it with `make bpf`"):
        ProgramSet.load(tmp_path / "missing.o", registry)


def test_the_set_has_no_program_of_another_name(declared: MapRegistry, core_object: Path) -> None:
    with (
        ProgramSet.load(core_object, declared) as programs,
        pytest.raises(LoadError, match="no program nope: it has answer, emit"),
    ):
        programs.program("nope")


def test_a_current_set_is_adopted_and_another_loaded(root: Path, core_object: Path, tmp_path: Path) -> None:
    folder = root / "ciliate" / "programs"

    def start(rodata: dict[str, int], path: Path = core_object, remove: str = "") -> tuple[int, bool]:
        with MapRegistry(root / "ciliate") as registry:
            registry.declare(DECLARED, "policy")
            (registry.folder / remove).unlink() if remove else None
            programs, loaded = ProgramSet.load_or_adopt(path, registry, folder, rodata)
            with programs:
                assert programs.names == PROGRAMS
                return programs.program("answer").info().id, loaded

    first, loaded = start({"mark": 1})
    assert loaded
    assert start({"mark": 1}) == (first, False)
    second, loaded = start({"mark": 2})
    assert loaded and second != first
    other = shutil.copy(core_object, tmp_path / "same.o")
    assert start({"mark": 2}, Path(other)) == (second, False)
    third, loaded = start({"mark": 2}, remove="declared")
    assert loaded and third != second


def test_pins_are_opened_without_the_object_and_only_if_whole(
    declared: MapRegistry, root: Path, core_object: Path
) -> None:
    folder = root / "ciliate" / "programs"
    assert ProgramSet.open_pinned(folder) is None
    with ProgramSet.load(core_object, declared) as programs:
        (folder).mkdir()
        (folder / "stale").symlink_to("x")
        programs.pin(folder)
        number, set_hash = programs.program("pass").info().id, programs.hash
    pinned = ProgramSet.open_pinned(folder, set_hash)
    assert pinned is not None
    with pinned:
        assert (pinned.names, pinned.hash) == (PROGRAMS, set_hash)
        assert pinned.program("pass").info().id == number
        assert pinned.program("pass").test_run(PACKET).retval == 0
    assert ProgramSet.open_pinned(folder, "another") is None
    (folder / "set").unlink()  # as after a death in the middle of pinning
    assert ProgramSet.open_pinned(folder) is None
    unpin(folder)
    unpin(folder)
    assert not folder.exists()


def test_opening_an_object_leaves_the_kernel_alone(core_object: Path) -> None:
    with ElfObject(core_object) as elf:
        assert sorted(one.name for one in elf.maps()) == ["declared", "records", "runs"]
