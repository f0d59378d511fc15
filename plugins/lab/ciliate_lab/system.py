"""System calls that Python 3.11 lacks: mount, umount, setns, unshare."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: Path, kind: str = "", flags: int = 0) -> None:
    """mount(2). Raises OSError."""
    result = _libc.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), None)
    _check(result, f"mounting {kind or source} at {target}")


def unmount(target: Path) -> None:
    """Detach a mount; it ends when its last user does. Raises OSError."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"unmounting {target}")


def unshare(flags: int) -> None:
    """Give the calling thread namespaces of its own. Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def setns(path: Path, kind: int = CLONE_NEWNET) -> None:
    """Move the calling thread into the namespace that a file stands for. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(handle, kind), f"entering {path}")
    finally:
        os.close(handle)


def mounts() -> list[tuple[Path, str]]:
    """Mount points and their file systems, as this process sees them, in the order of mounting."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape")
        found.append((Path(point), after.split()[0]))
    return found
