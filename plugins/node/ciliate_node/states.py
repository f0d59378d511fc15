"""What the supervisor knows of each process, kept in <run_dir>/node.json so that its next life can go on from it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec


class ProcessState(msgspec.Struct):
    """One process."""

    process: str
    plugins: list[str]
    essential: bool = False
    isolated: bool = False
    pid: int = 0  # 0: not running
    ticks: int = 0  # of its start, since boot: tells it from a later process of the same pid
    started: float = 0.0  # seconds since boot
    restarts: int = 0
    failures: int = 0  # in a row
    state: str = "waiting"  # running, waiting, disabled, stopped
    last_exit: str = ""  # "exit status 1", "signal 9"
    adopted: bool = False
    notes: list[str] = []  # what of its isolation could not be had


class NodeState(msgspec.Struct):
    """All that the supervisor runs."""

    supervisor: int
    fork_server: int
    processes: list[ProcessState]


def state_file(run_dir: Path) -> Path:
    """Where it is kept."""
    return run_dir / "node.json"


def read_state(run_dir: Path) -> NodeState | None:
    """What a supervisor last said; None if none has said anything."""
    try:
        return msgspec.json.decode(state_file(run_dir).read_bytes(), type=NodeState)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def write_state(run_dir: Path, state: NodeState) -> None:
    """Say it; readers see the old or the new one, whole."""
    new = state_file(run_dir).with_suffix(".new")
    new.write_bytes(msgspec.json.encode(state))
    new.rename(state_file(run_dir))


def start_ticks(pid: int) -> int:
    """When a process started, in ticks since boot; 0 if there is none, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in ("Z", "X") else int(fields[19])


def lives(state: ProcessState) -> bool:
    """Whether a process that was noted is still that process."""
    return state.pid > 0 and start_ticks(state.pid) == state.ticks != 0


def open_pidfd(pid: int) -> int:
    """A descriptor that becomes readable when the process ends. Raises OSError."""
    return os.pidfd_open(pid)
