"""Whether two maps are the same to a program: kind, sizes, flags and the fields of key and value."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ciliate.kernel import syscall
from ciliate.maps.spec import MapKind, MapSpec, Writer


@dataclass(frozen=True)
class Layout:
    """What the kernel knows of a map's form. Sizes in bytes. kind -1: the pin is no map at all."""

    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int

    def __str__(self) -> str:
        if self.kind < 0:
            return "not a map"
        return (
            f"type {self.kind}, key {self.key_size}, value {self.value_size} bytes, "
            f"{self.max_entries} entries, flags {self.flags:#x}"
        )


@dataclass(frozen=True)
class LayoutChanged:
    """A pinned map that a new one has taken the place of. The old one stays pinned at `kept` until it is dropped."""

    name: str
    writer: Writer
    old: Layout
    new: Layout
    kept: Path

    def __str__(self) -> str:
        fields = "" if self.old != self.new else " (same sizes, other fields)"
        change = f"{self.old} became {self.new}{fields}"
        return f"map {self.name} has a new layout: {change}; the old map is kept at {self.kept}"


def layout_of_spec(spec: MapSpec) -> Layout:
    """The layout that a declared map will have. Of a ring buffer, key and value are declared for readers only."""
    if spec.kind is MapKind.RINGBUF:
        return Layout(int(spec.kind), 0, 0, spec.max_entries, int(spec.flags))
    return Layout(int(spec.kind), spec.key.itemsize, spec.value.itemsize, spec.max_entries, int(spec.flags))


def layout_of_fd(fd: int) -> Layout:
    """The layout of an open bpf object."""
    if kind_of_fd(fd) != "map":
        return Layout(-1, 0, 0, 0, 0)
    info = syscall.map_info(fd)
    return Layout(info.kind, info.key_size, info.value_size, info.max_entries, info.flags)


def kind_of_fd(fd: int) -> str:
    """`map`, `prog` or `link`; another word if it is no bpf object."""
    return str(Path(f"/proc/self/fd/{fd}").readlink()).rpartition("bpf-")[2].rpartition("bpf_")[2]


def layout_hash(specs: Iterable[MapSpec]) -> str:
    """16 hexadecimal digits that change with any map's name, layout or fields. The order does not matter."""
    lines = sorted(f"{spec.name} {layout_of_spec(spec)} {spec.key.descr} {spec.value.descr}" for spec in specs)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
