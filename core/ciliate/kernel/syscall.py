"""bpf(2) through ctypes: numbers in, numbers out, a KernelError when the kernel says no.

Element operations keep the interpreter lock: they take a microsecond, and giving the lock away would cost a
busy process up to 5 ms to get it back. All that may wait (batches, loads, links, test runs) lets it go.
Buffers are passed by address; the caller keeps them alive.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ciliate.kernel import attributes as attr
from ciliate.kernel.attributes import Command
from ciliate.kernel.errors import KernelError

_NUMBERS = {"x86_64": 321, "aarch64": 280}
_NUMBER = _NUMBERS.get(platform.machine(), 280)
_waiting = ctypes.CDLL(None, use_errno=True).syscall
_quick = ctypes.PyDLL(None, use_errno=True).syscall
for _function in (_waiting, _quick):
    _function.restype = ctypes.c_long
    _function.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_ulong]

READ_ONLY = 1 << 3
"""File flag of BPF_OBJ_GET (BPF_F_RDONLY)."""
ANY, NO_EXIST, EXIST = 0, 1, 2
"""Element flags: write in any case, only a new key, only an existing key."""


def call(command: Command, attribute: ctypes.Structure) -> int:
    """One bpf(2) that may wait: its result, or the negative errno."""
    result = int(_waiting(_NUMBER, command, ctypes.addressof(attribute), ctypes.sizeof(attribute)))
    return result if result >= 0 else -ctypes.get_errno()


def call_quick(command: Command, attribute: ctypes.Structure) -> int:
    """One bpf(2) that never waits: its result, or the negative errno. Keeps the interpreter lock."""
    result = int(_quick(_NUMBER, command, ctypes.addressof(attribute), ctypes.sizeof(attribute)))
    return result if result >= 0 else -ctypes.get_errno()


def _checked(result: int, what: str, how: str = "") -> int:
    if result < 0:
        raise KernelError(-result, what, how)
    return result


def map_create(kind: int, key_size: int, value_size: int, max_entries: int, flags: int, name: str) -> int:
    """Make a map; its file descriptor."""
    attribute = attr.MapCreate(kind, key_size, value_size, max_entries, flags, 0, 0, name.encode())
    return _checked(
        call(Command.MAP_CREATE, attribute),
        f"creating map {name} (type {kind}, key {key_size}, value {value_size} bytes, {max_entries} entries)",
    )


def pin(fd: int, path: Path) -> None:
    """Pin a map, program or link. Raises KernelError: EEXIST, or EINVAL/EPERM where no bpffs is mounted."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    attribute = attr.Object(ctypes.addressof(name), fd, 0)
    _checked(
        call(Command.OBJ_PIN, attribute),
        f"pinning at {path}",
        f"is a bpffs mounted at {path.parent}, and writable?",
    )


def get_pinned(path: Path, read_only: bool = False) -> int:
    """Open what is pinned at a path; its file descriptor. Raises KernelError (ENOENT if there is nothing)."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    attribute = attr.Object(ctypes.addressof(name), 0, READ_ONLY if read_only else 0)
    result = call(Command.OBJ_GET, attribute)
    how = "nothing is pinned there: has its owner been started?" if result == -errno.ENOENT else ""
    return _checked(result, f"opening the pin {path}", how)


def program_load(kind: int, instructions: bytes, name: str = "", attach_type: int = 0, flags: int = 0) -> int:
    """Load raw instructions, for probes; the file descriptor. Programs proper are loaded by libbpf."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    gpl = ctypes.create_string_buffer(b"GPL")
    attribute = attr.ProgramLoad(
        kind, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(gpl), prog_name=name.encode()
    )
    attribute.expected_attach_type, attribute.prog_flags = attach_type, flags
    result = call(Command.PROG_LOAD, attribute)
    how = "the verifier refused it" if result == -errno.EACCES else ""
    return _checked(result, f"loading program {name} (type {kind})", how)


def link_create(program: int, target: int, attach_type: int) -> int:
    """Attach a program by a link, in the calling thread's network namespace; the link's file descriptor."""
    return _checked(
        call(Command.LINK_CREATE, attr.LinkCreate(program, target, attach_type)),
        f"attaching program {program} to interface or cgroup {target} (attach type {attach_type})",
    )


def link_update(link: int, program: int) -> None:
    """Replace a link's program atomically."""
    _checked(call(Command.LINK_UPDATE, attr.LinkUpdate(link, program)), f"replacing the program of link {link}")


def link_detach(link: int) -> None:
    """Detach a link without closing it."""
    _checked(call(Command.LINK_DETACH, attr.LinkUpdate(link)), f"detaching link {link}")


def query_programs(target: int, attach_type: int) -> Sequence[int]:
    """Ids of the programs attached at an interface's tcx hook, in their order."""
    ids = (ctypes.c_uint32 * 64)()
    attribute = attr.Query(target, attach_type, prog_ids=ctypes.addressof(ids), prog_cnt=len(ids))
    _checked(call(Command.PROG_QUERY, attribute), f"listing programs of interface {target} (attach type {attach_type})")
    return list(ids[: attribute.prog_cnt])


@dataclass(frozen=True)
class MapInfo:
    """A map as the kernel describes it. Sizes in bytes."""

    id: int
    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


@dataclass(frozen=True)
class ProgramInfo:
    """A program as the kernel describes it. `name` has at most 15 characters."""

    id: int
    kind: int
    tag: str
    name: str


@dataclass(frozen=True)
class LinkInfo:
    """A link as the kernel describes it; ifindex is 0 once the interface is gone."""

    id: int
    kind: int
    program_id: int
    ifindex: int
    attach_type: int


def _info(fd: int, into: ctypes.Structure, what: str) -> None:
    attribute = attr.Info(fd, ctypes.sizeof(into), ctypes.addressof(into))
    _checked(call(Command.OBJ_GET_INFO_BY_FD, attribute), f"reading about {what} {fd}")


def map_info(fd: int) -> MapInfo:
    """What a map is."""
    raw = attr.MapInfoStruct()
    _info(fd, raw, "map")
    return MapInfo(raw.id, raw.type, raw.key_size, raw.value_size, raw.max_entries, raw.map_flags, raw.name.decode())


def program_info(fd: int) -> ProgramInfo:
    """What a program is."""
    raw = attr.ProgramInfoStruct()
    _info(fd, raw, "program")
    return ProgramInfo(raw.id, raw.type, bytes(raw.tag).hex(), raw.name.decode())


def link_info(fd: int) -> LinkInfo:
    """What a link is and where it is attached."""
    raw = attr.LinkInfoStruct()
    _info(fd, raw, "link")
    return LinkInfo(raw.id, raw.type, raw.prog_id, raw.ifindex, raw.attach_type)
