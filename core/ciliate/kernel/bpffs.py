"""bpffs: the file system that holds pins. Names in it must not contain dots (the kernel keeps those for itself)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from ciliate.kernel.errors import KernelError

MAGIC = 0xCAFE4A11
_libc = ctypes.CDLL(None, use_errno=True)


def is_bpffs(path: Path) -> bool:
    """Whether an existing path lies in a bpffs."""
    buffer = (ctypes.c_long * 32)()  # struct statfs: f_type is its first word
    if _libc.statfs(os.fsencode(path), buffer) != 0:
        return False
    return buffer[0] & 0xFFFFFFFF == MAGIC


def ensure_folder(folder: Path) -> None:
    """Make a folder in a bpffs, with its parents. Raises KernelError naming the mount command if there is none."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not is_bpffs(existing):
        point = "/sys/fs/bpf" if str(folder).startswith("/sys/fs/bpf") else str(folder)
        raise KernelError(
            errno.ENODEV,
            f"using {folder} for pinned maps and programs: no bpffs is mounted there",
            f"mount it: mount -t bpf bpf {point}",
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, f"making the bpffs folder {folder}") from error


def mount(point: Path) -> None:
    """Mount a bpffs at a folder (made if need be), unless one is there already."""
    point.mkdir(mode=0o755, parents=True, exist_ok=True)
    if is_bpffs(point):
        return
    if _libc.mount(b"bpf", os.fsencode(point), b"bpf", 0, b"mode=0700") != 0:
        raise KernelError(ctypes.get_errno(), f"mounting a bpffs at {point}")


def unmount(point: Path) -> None:
    """Unmount a bpffs; what is pinned in it and not in use elsewhere goes away. Nothing if none is mounted there."""
    if point.is_dir() and os.path.ismount(point) and _libc.umount2(os.fsencode(point), 2) != 0:
        raise KernelError(ctypes.get_errno(), f"unmounting the bpffs at {point}")


@contextlib.contextmanager
def mounted(point: Path) -> Iterator[Path]:
    """A bpffs of one's own at a folder, for tests and tools; unmounted afterwards."""
    mount(point)
    try:
        yield point
    finally:
        unmount(point)
