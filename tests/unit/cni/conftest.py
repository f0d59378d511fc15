"""Short folders (a Unix socket's path has 107 characters at most) and the built shim."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cni import shim


@pytest.fixture(scope="session", autouse=True)
def shim_binary() -> Path:
    return shim.build()


@pytest.fixture
def run_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="cni-"))
    yield path
    shutil.rmtree(path)
