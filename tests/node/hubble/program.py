"""What asks: the real program, or our generated client behind the same flags."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ciliate_lab import namespaces

from tests.go import build
from tests.node.labs import BIN

PACKAGE = "github.com/cilium/cilium/hubble"
OURS = (str(BIN / "ciliate"), "hubble")
Flow = dict[str, Any]


def real_program() -> tuple[Path | None, str]:
    """The real program, built the first time; else None and why."""
    try:
        return build.program("hubble", PACKAGE, "hubble"), ""
    except build.BuildError as error:
        return None, str(error).splitlines()[0]


@dataclass(frozen=True)
class Hubble:
    """A program that speaks Hubble's command line, and where and as whom it runs."""

    program: tuple[str, ...]
    netns: str  # empty: this one
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, line: str, check: bool = True, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """A command line as `observe --last 3`. AssertionError, with what it said, unless check=False."""
        command = self._command(line)
        done = subprocess.run(
            command, env=self._environment(), text=True, capture_output=True, timeout=timeout, check=False
        )
        assert not check or done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done

    def start(self, line: str) -> subprocess.Popen[str]:
        """A command line that goes on by itself."""
        return subprocess.Popen(
            self._command(line), env=self._environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def flows(self, flags: str) -> list[Flow]:
        """The flows of `observe` with some flags."""
        answers = [json.loads(line) for line in self.run(f"observe -s -o json {flags}").stdout.splitlines()]
        return [answer["flow"] for answer in answers if "flow" in answer]

    def _command(self, line: str) -> list[str]:
        enter = ["nsenter", f"--net={namespaces.path(self.netns)}"] if self.netns else []
        return [*enter, *self.program, *shlex.split(line)]

    def _environment(self) -> dict[str, str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("HUBBLE_")}
        return plain | {"TZ": "UTC", "HOME": "/nonexistent"} | dict(self.environment)


@contextmanager
def following(hubble: Hubble, flags: str) -> Iterator[list[str]]:
    """The lines that `observe` with some flags, which goes on by itself, has printed so far."""
    process = hubble.start(f"observe -s {flags}")
    out, lines = process.stdout, list[str]()
    assert out is not None
    reader = threading.Thread(target=lambda: lines.extend(iter(out.readline, "")), daemon=True)
    reader.start()
    try:
        yield lines
    finally:
        process.kill()
        reader.join()
        process.communicate()
