"""Network namespaces by name, where `ip netns` keeps them too.

Made here and not by `ip netns add`, which leaves a mount of /run/netns on itself behind.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ciliate_lab import system

FOLDER = Path("/run/netns")
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
T = TypeVar("T")


def path(name: str) -> Path:
    """The file that stands for a namespace."""
    return FOLDER / name


def create(name: str) -> Path:
    """A new namespace with its loopback up. Raises OSError; FileExistsError if the name is taken."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    target = path(name)
    target.touch(mode=0o444, exist_ok=False)
    try:
        _in_thread(lambda: _unshare_at(target))
    except OSError:
        target.unlink()
        raise
    return target


def delete(name: str) -> None:
    """Remove a namespace; its devices go with its last process. One that is not there is fine."""
    target = path(name)
    _unmount_all(target)
    try:
        target.unlink(missing_ok=True)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        _in_thread(lambda: _unlink_hidden(target))
    with suppress(OSError):  # ours or not: an empty folder is nobody's
        FOLDER.rmdir()


def named(prefix: str) -> list[str]:
    """Names of all namespaces with a prefix."""
    return sorted(p.name for p in FOLDER.glob(f"{prefix}*")) if FOLDER.is_dir() else []


def inside(name: str, function: Callable[[], T]) -> T:
    """The result of a function that runs inside a namespace, in a thread of its own."""

    def enter() -> T:
        system.setns(path(name))
        return function()

    return _in_thread(enter)


def _unshare_at(target: Path) -> None:
    system.unshare(system.CLONE_NEWNET)
    system.mount("/proc/thread-self/ns/net", target, flags=system.MS_BIND)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _unmount_all(target: Path) -> None:
    while True:
        try:
            system.unmount(target)
        except OSError:
            return


def _unlink_hidden(target: Path) -> None:
    """Remove a file that is mounted under another mount: the first `ip netns add` lays /run/netns over itself.

    In mount namespaces other than the caller's a mount does not keep its file from being removed; it goes with it.
    """
    system.unshare(system.CLONE_NEWNS)
    system.mount("none", Path("/"), flags=system.MS_REC | system.MS_PRIVATE)
    _unmount_all(FOLDER)
    _unmount_all(target)
    target.unlink(missing_ok=True)


def _in_thread(function: Callable[[], T]) -> T:
    """Run in a thread that ends afterwards: a namespace that a thread has entered must not leak into the others."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # handed to the caller
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
