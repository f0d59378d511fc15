"""A bpffs, a registry and the core's test object of one's own for each test."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ciliate.kernel import bpffs
from ciliate.maps.registry import MapRegistry
from ciliate.maps.spec import MapFlag, MapKind, MapSpec, Writer

SOURCE = Path(__file__).parent.parent / "programs" / "core.bpf.c"
PREFIX = np.dtype([("prefixlen", "<u4"), ("address", "u1", 16)])
PAIR = np.dtype([("identity", "<u4"), ("port", ">u2"), ("pad", "<u2")])
RECORD = np.dtype([("number", "<u8"), ("size", "<u4"), ("pad", "<u4"), ("body", "u1", 152)])
INDEX = np.dtype("<u4")

DECLARED = MapSpec("declared", MapKind.LPM_TRIE, PREFIX, PAIR, 500, "A prefix map.", MapFlag.NO_PREALLOC)
RECORDS = MapSpec("records", MapKind.RINGBUF, INDEX, RECORD, 1 << 22, "Records.", writer=Writer.PROGRAM)
COUNTERS = MapSpec("counters", MapKind.ARRAY, INDEX, np.dtype("<u4"), 65536, "Counters.", MapFlag.MMAPABLE)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def root() -> Iterator[Path]:
    """A bpffs mounted for this test alone."""
    with (
        tempfile.TemporaryDirectory(prefix="coreb-", dir="/run") as folder,
        bpffs.mounted(Path(folder) / "bpf") as point,
    ):
        yield point


@pytest.fixture
def registry(root: Path) -> Iterator[MapRegistry]:
    """A registry in a folder of the bpffs."""
    with MapRegistry(root / "ciliate") as made:
        yield made


def compile_object(source: Path, target: Path, *more: str) -> Path:
    """Compile C to a BPF object; more: flags."""
    include = f"-I/usr/include/{os.uname().machine}-linux-gnu"
    flags = ["-target", "bpf", "-g", "-O2", "-mcpu=v3", "-Wall", "-Werror", include, *more]
    subprocess.run(["clang-19", *flags, "-c", str(source), "-o", str(target)], check=True)
    return target


@pytest.fixture(scope="session")
def core_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/bpf/programs/core.bpf.c, compiled."""
    return compile_object(SOURCE, tmp_path_factory.mktemp("coreb") / "core.bpf.o")
