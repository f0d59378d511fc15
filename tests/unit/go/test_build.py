"""A Go program is built once, by one of those who want it, and a refusal says why."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.go import build

MAIN = 'package main\n\nvar word = "unset"\n\nfunc main() { println(word) }\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module `hello`, with a program that prints a variable, and a cache of the test's own."""
    module = tmp_path / "modules/hello"
    module.mkdir(parents=True)
    (module / "go.mod").write_text("module ciliate.test/hello\n\ngo 1.20\n")
    (module / "go.sum").touch()
    (module / "main.go").write_text(MAIN)
    monkeypatch.setattr(build, "FOLDER", module.parent)
    monkeypatch.setenv(
        "GOCACHE", subprocess.run(["go", "env", "GOCACHE"], capture_output=True, text=True).stdout.strip()
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield module


needs_go = pytest.mark.skipif(
    build.reason_not_to_build("hubble") is not None, reason=str(build.reason_not_to_build("hubble"))
)


def _words(program: Path) -> str:
    return subprocess.run([program], capture_output=True, text=True, check=True).stderr.strip()


@needs_go
def test_two_that_want_a_program_at_once_build_it_once(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: build.program("hello", ".", "hello"), range(2))
    assert first == second == build.built("hello", "hello")
    assert _words(first) == "unset"
    assert capfd.readouterr().err.count("go: building hello") == 1


@needs_go
def test_a_stamp_makes_a_program_of_its_own(folder: Path) -> None:
    stamped = build.program("hello", ".", "hello", {"main.word": "stamped"})
    assert _words(stamped) == "stamped"
    assert build.built("hello", "hello") is None


@needs_go
def test_a_refusal_has_the_compilers_words_and_leaves_nothing_to_run(folder: Path) -> None:
    (folder / "main.go").write_text("package main\n\nfunc main() { nonsense() }\n")
    with pytest.raises(build.BuildError, match="undefined: nonsense"):
        build.program("hello", ".", "hello")
    assert build.built("hello", "hello") is None


@needs_go
def test_a_module_for_a_newer_go_is_refused_by_version(folder: Path) -> None:
    (folder / "go.mod").write_text("module ciliate.test/hello\n\ngo 1.999\n")
    assert "is older than the 1.999 that tests/go/hello needs" in (build.reason_not_to_build("hello") or "")


def test_without_go_the_reason_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent / "nothing"))
    assert build.reason_not_to_build("hubble") == "Go is not installed"
