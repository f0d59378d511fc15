"""One loaded program."""

from __future__ import annotations

import ctypes
import enum
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from ciliate.kernel import attributes as attr
from ciliate.kernel import syscall
from ciliate.kernel.attributes import Command
from ciliate.kernel.errors import KernelError


class ProgramKind(enum.IntEnum):
    """Program types in use (enum bpf_prog_type)."""

    SCHED_CLS = 3
    XDP = 6
    CGROUP_SOCK_ADDR = 18
    SYSCALL = 31


@dataclass(frozen=True)
class TestRun:
    """What BPF_PROG_TEST_RUN gave back. `retval` is unsigned; `data`: the packet after; `duration_ns` of one run."""

    __test__ = False

    retval: int
    data: bytes
    ctx: bytes
    duration_ns: int


class Program:
    """A program in the kernel. The name is the C function's."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd

    def info(self) -> syscall.ProgramInfo:
        """What the kernel says of it."""
        return syscall.program_info(self.fd)

    def test_run(
        self, data: bytes = b"", ctx: bytes | None = None, repeat: int = 1, flags: int = 0, cpu: int = 0
    ) -> TestRun:
        """Run once (or `repeat` times on the same packet, which then is what the last run left of it).

        data: an Ethernet frame of at least 14 bytes (tc, XDP). ctx: a struct __sk_buff or xdp_md, or what a
        SEC("syscall") program takes (which has no data and is run once). Raises KernelError.
        """
        if self.info().kind == ProgramKind.SYSCALL:
            return self._run_syscall(ctx or b"")
        room = max(len(data) + 1024, 4096)
        data_in, data_out = ctypes.create_string_buffer(data, len(data)), ctypes.create_string_buffer(room)
        request = attr.TestRunAttr(
            prog_fd=self.fd, data_size_in=len(data), data_size_out=room, repeat=repeat, flags=flags
        )
        request.data_in, request.data_out, request.cpu = ctypes.addressof(data_in), ctypes.addressof(data_out), cpu
        ctx_in = ctypes.create_string_buffer(ctx or b"", len(ctx or b""))
        ctx_out = ctypes.create_string_buffer(256)
        if ctx is not None:
            request.ctx_size_in, request.ctx_in = len(ctx), ctypes.addressof(ctx_in)
            request.ctx_size_out, request.ctx_out = len(ctx_out), ctypes.addressof(ctx_out)
        self._run(request)
        after, context = data_out.raw[: request.data_size_out], ctx_out.raw[: request.ctx_size_out]
        return TestRun(request.retval, after, context, request.duration)

    def pin(self, path: Path) -> None:
        """Pin at a path in a bpffs; what was pinned there is replaced atomically."""
        fresh = path.with_name(f"{path.name}-new")
        fresh.unlink(missing_ok=True)
        syscall.pin(self.fd, fresh)
        fresh.rename(path)

    @classmethod
    def open_pinned(cls, path: Path) -> Program:
        """The program pinned at a path. Raises KernelError."""
        return cls(path.name, syscall.get_pinned(path))

    def close(self) -> None:
        """Let go; attached or pinned, it stays in the kernel. Closing twice is harmless."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _run_syscall(self, ctx: bytes) -> TestRun:
        buffer = ctypes.create_string_buffer(ctx, len(ctx))
        request = attr.TestRunAttr(prog_fd=self.fd)
        if ctx:
            request.ctx_size_in, request.ctx_in = len(ctx), ctypes.addressof(buffer)
        self._run(request)
        return TestRun(request.retval, b"", buffer.raw, 0)

    def _run(self, request: attr.TestRunAttr) -> None:
        while (result := syscall.call(Command.PROG_TEST_RUN, request)) == -errno.EINTR:
            pass  # a signal cut a long run short: it starts again
        if result < 0:
            raise KernelError(-result, f"test-running program {self.name}")
