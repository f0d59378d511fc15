"""Exactly one process owns a map: a lock that the kernel gives back when the owner dies.

Pins can't be locked, so each map has a folder in the bpffs whose only use is to be locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


class MapOwnedError(RuntimeError):
    """Another process owns the map; the text names it where it can be found."""


def acquire(folder: Path, name: str) -> int:
    """Become the owner of a map; a descriptor that holds the ownership until it is closed. Raises MapOwnedError."""
    lock = folder / name
    lock.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(lock, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = _holder(fd)
        os.close(fd)
        raise MapOwnedError(
            f"map {name} is owned by {owner}: stop that process first, or open the map for reading"
        ) from error
    return fd


def _holder(fd: int) -> str:
    """Who holds the lock, as /proc/locks knows it."""
    inode = os.fstat(fd).st_ino
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
                pid = int(fields[4])
                if pid == os.getpid():
                    return "another registry of this process"
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f"process {pid} ({command.strip()[:80]})"
    return "another process"
