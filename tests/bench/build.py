"""C to static programs and BPF objects, into build/bench; built anew only when a source is newer."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "bench"
HEADERS = (ROOT / "tests/bench", ROOT / "tests/node")


class BuildError(Exception):
    """The compiler refused; its words are in the message."""


def _compile(command: list[str], source: Path, target: Path) -> Path:
    BUILD.mkdir(parents=True, exist_ok=True)
    sources = [source, *(header for folder in HEADERS for header in folder.glob("*.h"))]
    if target.exists() and target.stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return target
    partial = target.with_suffix(".partial")
    done = subprocess.run([*command, "-o", str(partial), str(source)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{source}: {command[0]} refused it:\n{done.stderr}")
    partial.rename(target)
    return target


def program(source: Path) -> Path:
    """The static program of one C file."""
    return _compile(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"], source, BUILD / source.stem)


def bpf_object(source: Path) -> Path:
    """The BPF object of one `.bpf.c` file."""
    include = f"-I/usr/include/{platform.machine()}-linux-gnu"
    command = ["clang-19", "-O2", "-g", "-mcpu=v3", "-target", "bpf", "-Wall", "-Werror", include, "-c"]
    return _compile(command, source, BUILD / (source.name.removesuffix(".c") + ".o"))
