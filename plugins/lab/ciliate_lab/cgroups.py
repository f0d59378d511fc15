"""Control groups (version 2): which processes belong to what, and how to end them all."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from ciliate_lab import system


class CgroupError(Exception):
    """Control groups are not as needed; the message says how to mend it."""


@cache
def root() -> Path:
    """Where version 2 is mounted. Raises CgroupError."""
    for point, kind in system.mounts():
        if kind == "cgroup2":
            return point
    raise CgroupError("no cgroup2 file system is mounted: run `mount -t cgroup2 none /sys/fs/cgroup/unified`")


def create(group: Path) -> Path:
    """A control group, with its parents."""
    group.mkdir(parents=True, exist_ok=True)
    return group


def pids(group: Path) -> list[int]:
    """Processes of a group and of those below it; none if it is not there."""
    found: list[int] = []
    for folder, _, _ in os.walk(group):
        with suppress(OSError):
            found += [int(pid) for pid in Path(folder, "cgroup.procs").read_text().split()]
    return found


def signal_all(group: Path, number: signal.Signals) -> None:
    """Send a signal to every process of a group."""
    for pid in pids(group):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def kill(group: Path, timeout: float = 10.0) -> None:
    """End every process of a group, also those being forked, and wait until they have ended. Raises CgroupError."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            (group / "cgroup.kill").write_text("1")
        except FileNotFoundError:  # no such group, or a kernel before 5.14
            signal_all(group, signal.SIGKILL)
        if not populated(group):
            return
        if time.monotonic() > deadline:
            raise CgroupError(
                f"{group}: processes {pids(group)} do not end within {timeout:g} s; are they in a system call?"
            )
        time.sleep(0.005)


def populated(group: Path) -> bool:
    """Whether a group, or one below it, has a process."""
    try:
        return "populated 1" in (group / "cgroup.events").read_text()
    except OSError:  # gone meanwhile
        return False


def remove(group: Path, timeout: float = 5.0) -> None:
    """Remove an empty group and those below it. Raises CgroupError."""
    deadline = time.monotonic() + timeout
    while group.exists():
        try:
            for folder, _, _ in os.walk(group, topdown=False):
                Path(folder).rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:  # the kernel lets go of a killed process a moment after it counts as ended
            if time.monotonic() > deadline:
                raise CgroupError(f"{group}: can't be removed: {error}; processes: {pids(group)}") from error
            time.sleep(0.005)
