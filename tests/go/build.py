"""Builds a Go program from one of the modules beside this file, once, into a cache outside the tree.

The cache is `${XDG_CACHE_HOME:-~/.cache}/ciliate/go/<hash of go.mod and go.sum>/`. Two runs that want the same program
at once build it once: the second waits. `python -m tests.go.build MODULE PACKAGE NAME` builds from the command line.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PROGRESS_SECONDS = 30.0
ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false -trimpath"}


class BuildError(Exception):
    """Go refused, or what it needs can't be had; its last words are in the message."""


def reason_not_to_build(module: str) -> str | None:
    """Why a program of this module can't be built on this machine; None: it can (what it requires may need a proxy)."""
    if not (go := shutil.which("go")):
        return "Go is not installed"
    wanted = re.search(r"^go (\d+)\.(\d+)", (FOLDER / module / "go.mod").read_text(), re.MULTILINE)
    found = re.search(
        r"go(\d+)\.(\d+)", subprocess.run([go, "version"], capture_output=True, text=True, check=False).stdout
    )
    if not found:
        return f"`{go} version` names no version"
    if wanted and tuple(map(int, found.groups())) < tuple(map(int, wanted.groups())):
        return (
            f"Go {'.'.join(found.groups())} is older than the {'.'.join(wanted.groups())} that tests/go/{module} needs"
        )
    return None


def built(module: str, name: str, stamps: Mapping[str, str] | None = None) -> Path | None:
    """The program if an earlier run has built it."""
    path = _folder(module, stamps or {}) / name
    return path if path.exists() else None


def program(module: str, package: str, name: str, stamps: Mapping[str, str] | None = None) -> Path:
    """The program `name`, built from `package` as tests/go/<module> pins it.

    `stamps` are string variables to set at link time, by full name (`k8s.io/component-base/version.gitVersion`). Takes
    minutes the first time, with a line of progress each half minute on standard error: call it outside of a test's
    time limit.
    BuildError: it can't be built.
    """
    folder = _folder(module, stamps or {})
    target = folder / name
    if target.exists():
        return target
    if reason := reason_not_to_build(module):
        raise BuildError(f"{name} can't be built: {reason}")
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder / f"{name}.lock", name):
        if not target.exists():
            _build(module, package, target, stamps or {})
    return target


def _folder(module: str, stamps: Mapping[str, str]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    pins = b"".join((FOLDER / module / name).read_bytes() for name in ("go.mod", "go.sum"))
    return cache / "ciliate/go" / hashlib.sha256(pins + repr(sorted(stamps.items())).encode()).hexdigest()[:16]


@contextmanager
def _lock(path: Path, name: str) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"waiting for another run that builds {name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(module: str, package: str, target: Path, stamps: Mapping[str, str]) -> None:
    partial = target.with_name(f"{target.name}.partial")
    flags = " ".join(["-s", "-w", *(f"-X {variable}={value}" for variable, value in stamps.items())])
    command = ["nice", "-n", "10", "go", "build", "-ldflags", flags, "-o", str(partial), package]
    began = time.monotonic()
    _say(f"building {target.name} from {package} into {target.parent}; minutes, the first time")
    words = target.with_name(f"{target.name}.log")
    with words.open("w") as log:
        process = subprocess.Popen(
            command, cwd=FOLDER / module, env=os.environ | ENVIRONMENT, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        try:
            _wait(process, target.name, began)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        raise BuildError(
            f"`{' '.join(command[3:])}` in tests/go/{module} failed:\n"
            + "\n".join(words.read_text().splitlines()[-20:])
        )
    partial.rename(target)
    _say(f"built {target.name}, {target.stat().st_size / 1e6:.0f} MB, in {time.monotonic() - began:.0f} s")


def _wait(process: subprocess.Popen[bytes], name: str, began: float) -> None:
    while True:
        try:
            process.wait(PROGRESS_SECONDS)
        except subprocess.TimeoutExpired:
            _say(f"still building {name}, {time.monotonic() - began:.0f} s so far")
        else:
            return


def _say(words: str) -> None:
    print(f"go: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    wanted_module, wanted_package, wanted_name = sys.argv[1:]
    print(program(wanted_module, wanted_package, wanted_name))
