"""A tc program at an interface by a tcx link (Linux 6.6): kept by a pin, replaced atomically.

Making or breaking a link waits about 12 ms for rtnl: call it from a worker thread. Works in the calling thread's
network namespace. Programs are loaded as `tc`; the kernel takes those for tcx links too.
"""

from __future__ import annotations

import enum
import errno
import os
from pathlib import Path

from ciliate.kernel import syscall
from ciliate.kernel.errors import KernelError
from ciliate.programs.program import Program

_TCX_LINK = 11


class Hook(enum.IntEnum):
    """Where at an interface (enum bpf_attach_type)."""

    INGRESS = 46
    EGRESS = 47


class Link:
    """An attached program, as long as the link is open or pinned."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def info(self) -> syscall.LinkInfo:
        """Where it is attached, and which program."""
        return syscall.link_info(self.fd)

    def update(self, program: Program) -> None:
        """Replace the program atomically: each packet meets the old or the new one. Raises KernelError."""
        syscall.link_update(self.fd, program.fd)

    def detach(self) -> None:
        """Take the program off the interface, wherever the link is pinned or held."""
        syscall.link_detach(self.fd)

    def close(self) -> None:
        """Let go; a pinned link stays attached. Closing twice is harmless."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def attach_tcx(ifindex: int, program: Program, direction: Hook, pin_path: Path | None = None) -> Link:
    """Attach a program; with a pin, the pinned link is updated in place if it is still at this interface and hook.

    Idempotent with a pin; without one, each call adds a program behind those there. Raises KernelError (EINVAL on
    kernels before 6.6).
    """
    if pin_path is not None and (kept := _kept(pin_path, ifindex, direction)) is not None:
        kept.update(program)
        return kept
    link = Link(syscall.link_create(program.fd, ifindex, direction))
    if pin_path is not None:
        try:
            fresh = pin_path.with_name(f"{pin_path.name}-new")
            fresh.unlink(missing_ok=True)
            syscall.pin(link.fd, fresh)
            fresh.rename(pin_path)
        except OSError:
            link.close()
            raise
    return link


def pinned_tcx(pin_path: Path) -> Link | None:
    """The link that is pinned at a path, to be closed by the caller; None if nothing is. Raises KernelError."""
    try:
        return Link(syscall.get_pinned(pin_path))
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def detach_tcx(pin_path: Path) -> bool:
    """Detach a pinned link and remove the pin; whether there was one."""
    link = pinned_tcx(pin_path)
    if link is None:
        return False
    try:
        if link.info().ifindex:
            link.detach()
    finally:
        link.close()
    pin_path.unlink()
    return True


def list_tcx(ifindex: int, direction: Hook) -> list[int]:
    """Ids of the programs at an interface's hook, in their order."""
    return list(syscall.query_programs(ifindex, direction))


def _kept(pin_path: Path, ifindex: int, direction: Hook) -> Link | None:
    """The pinned link, if it is attached where it is wanted; another is detached, so that no old program stays."""
    link = pinned_tcx(pin_path)
    if link is None:
        return None
    info = link.info()
    if (info.kind, info.ifindex, info.attach_type) == (_TCX_LINK, ifindex, direction):
        return link
    if info.kind == _TCX_LINK and info.ifindex:
        link.detach()
    link.close()
    return None
