"""The trials behind `ciliate.kernel.probe`: each does the thing once, cleans up, and raises KernelError if it can't."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from ciliate.kernel import attributes as attr
from ciliate.kernel import syscall
from ciliate.kernel.attributes import Command
from ciliate.kernel.errors import KernelError

SCHED_CLS, XDP, CGROUP_SOCK_ADDR, SYSCALL = 3, 6, 18, 31
SLEEPABLE = 1 << 4
_MMAPABLE = 1 << 10
_LOOPBACK = 1
_TCX_INGRESS = 46


def _instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | destination, offset, immediate)


def _set(register: int, value: int) -> bytes:
    return _instruction(0xB7, register, immediate=value)


_EXIT = _instruction(0x95)


@contextlib.contextmanager
def _program(kind: int, instructions: bytes, attach_type: int = 0, flags: int = 0) -> Iterator[int]:
    fd = syscall.program_load(kind, instructions, "probe", attach_type, flags)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _map(kind: int, key: int, value: int, entries: int, flags: int = 0) -> Iterator[int]:
    fd = syscall.map_create(kind, key, value, entries, flags, "probe")
    try:
        yield fd
    finally:
        os.close(fd)


def make_map(kind: int, key: int, value: int, entries: int, flags: int = 0) -> None:
    """Make a map of a kind."""
    with _map(kind, key, value, entries, flags):
        pass


def map_into_memory() -> None:
    """Map an array into memory and see a store by the other way."""
    with _map(2, 4, 8, 4, _MMAPABLE) as fd:
        try:
            memory = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, "mapping an array into memory") from error
        memory[8:16] = b"probe..."
        key, value = ctypes.c_uint32(1), ctypes.create_string_buffer(8)
        syscall.call(Command.MAP_LOOKUP_ELEM, attr.Element(fd, 0, ctypes.addressof(key), ctypes.addressof(value)))
        memory.close()
        if value.raw != b"probe...":
            raise KernelError(errno.EIO, "a store into a mapped array is not seen by the kernel")


def read_in_batches() -> None:
    """Read an empty hash in one batch: the kernel says that there is nothing, not that it can't."""
    with _map(1, 4, 4, 4) as fd:
        position, keys, values = ctypes.c_uint64(), (ctypes.c_uint32 * 4)(), (ctypes.c_uint32 * 4)()
        addresses = (ctypes.addressof(one) for one in (position, keys, values))
        result = syscall.call(Command.MAP_LOOKUP_BATCH, attr.Batch(0, *addresses, 4, fd))
        if result not in (0, -errno.ENOENT):
            raise KernelError(-result, "reading a hash in batches")


def read_kernel_btf() -> None:
    """The kernel's own types, which CO-RE needs."""
    path = Path("/sys/kernel/btf/vmlinux")
    try:
        with path.open("rb") as file:
            magic = file.read(2)
    except OSError as error:
        raise KernelError(
            error.errno or errno.EIO, f"reading {path}", "the kernel needs CONFIG_DEBUG_INFO_BTF"
        ) from error
    if magic != b"\x9f\xeb":
        raise KernelError(errno.EILSEQ, f"reading {path}")


def load(kind: int, attach_type: int = 0, result: int = 1, flags: int = 0) -> None:
    """Load a program of a kind that only returns `result`."""
    with _program(kind, _set(0, result) + _EXIT, attach_type, flags):
        pass


def helper(number: int) -> None:
    """Call a helper from a tc program with zeros: a kernel without it says EINVAL; EACCES means only the zeros."""
    zeros = b"".join(_set(register, 0) for register in (2, 3, 4, 5))
    try:
        with _program(SCHED_CLS, zeros + _instruction(0x85, immediate=number) + _set(0, 0) + _EXIT):
            pass
    except KernelError as error:
        if error.errno != errno.EACCES:
            raise


def attach_filter() -> None:
    """clsact and a direct-action filter on this namespace's loopback."""
    with _program(SCHED_CLS, _set(0, 0) + _EXIT) as fd:
        kind, options = b"\x0b\x00\x01\x00clsact\0\0", struct.pack("=HHIHHI", 8, 6, fd, 8, 8, 1)
        qdisc = struct.pack("=IHHIIBxxxiIII", 48, 36, 0x605, 1, 0, 0, _LOOPBACK, 0xFFFF0000, 0xFFFFFFF1, 0) + kind
        place = struct.pack("=BxxxiIII", 0, _LOOPBACK, 1, 0xFFFFFFF2, 1 << 16 | socket.htons(3))
        body = place + b"\x08\x00\x01\x00bpf\0" + struct.pack("=HH", 4 + len(options), 2) + options
        message = struct.pack("=IHHII", 16 + len(body), 44, 0x605, 2, 0) + body
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
            for request, what in ((qdisc, "clsact"), (message, "cls_bpf")):
                netlink.send(request)
                number = -struct.unpack_from("=i", netlink.recv(4096), 16)[0]
                if number:
                    raise KernelError(number, f"putting {what} on an interface")


def attach_link() -> None:
    """A tcx link on this namespace's loopback."""
    with _program(SCHED_CLS, _set(0, 0) + _EXIT) as fd:
        os.close(syscall.link_create(fd, _LOOPBACK, _TCX_INGRESS))
