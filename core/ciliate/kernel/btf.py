"""BTF: the types of C as clang writes them into an object file. A parser of what layouts need, and no more.

Types are numbered from 1 in the order of the section; 0 is void. Offsets and sizes here are bytes.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field

_MAGIC = 0xEB9F
_DEPTH = 64


class BtfError(ValueError):
    """The section is damaged, or a type is not what the caller needs; the text says which."""


class BtfKind(enum.IntEnum):
    """Kinds of types (linux/btf.h)."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


_WRAPPERS = {
    BtfKind.TYPEDEF, BtfKind.VOLATILE, BtfKind.CONST, BtfKind.RESTRICT, BtfKind.TYPE_TAG, BtfKind.VAR, BtfKind.FUNC
}  # fmt: skip
_EXTRA = {  # bytes after the common header: once, and per member
    BtfKind.INT: (4, 0),
    BtfKind.ARRAY: (12, 0),
    BtfKind.STRUCT: (0, 12),
    BtfKind.UNION: (0, 12),
    BtfKind.ENUM: (0, 8),
    BtfKind.FUNC_PROTO: (0, 8),
    BtfKind.VAR: (4, 0),
    BtfKind.DATASEC: (0, 12),
    BtfKind.DECL_TAG: (4, 0),
    BtfKind.ENUM64: (0, 12),
}


@dataclass(frozen=True)
class Member:
    """A field of a struct or union, or a variable of a section. `type` is its number; bit fields have `bits` set."""

    name: str
    type: int
    offset: int
    bits: int = 0


@dataclass(frozen=True)
class BtfType:
    """One type. `target`: what is pointed to, wrapped or repeated. `encoding` of an INT: 1 signed, 2 char, 4 bool."""

    kind: BtfKind
    name: str
    size: int = 0
    target: int = 0
    count: int = 0
    encoding: int = 0
    members: tuple[Member, ...] = field(default=())


class Btf:
    """The types of one object file, from the raw bytes of its `.BTF` section. Raises BtfError if they are damaged."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        try:
            magic, _, _, header, type_at, type_size, string_at, string_size = struct.unpack_from("<HBBIIIII", raw)
            if magic != _MAGIC:
                raise BtfError(f"not BTF of this machine's byte order: it begins with {raw[:4].hex()}")
            self._strings = raw[header + string_at : header + string_at + string_size]
            self.types = [BtfType(BtfKind.VOID, "void")]
            position, end = header + type_at, header + type_at + type_size
            while position < end:
                parsed, position = self._parse(raw, position)
                self.types.append(parsed)
        except BtfError:
            raise
        except (struct.error, IndexError, ValueError) as error:
            raise BtfError(f"BTF is damaged: {error}") from error

    def type(self, number: int) -> BtfType:
        """A type by its number. Raises BtfError."""
        if not 0 <= number < len(self.types):
            raise BtfError(f"BTF has no type number {number}")
        return self.types[number]

    def resolve(self, number: int) -> BtfType:
        """A type without typedefs, const, volatile and tags."""
        found = self.type(number)
        for _ in range(_DEPTH):
            if found.kind not in _WRAPPERS:
                return found
            found = self.type(found.target)
        raise BtfError(f"BTF type {number} is a circle")

    def size(self, number: int) -> int:
        """sizeof, in bytes."""
        repeat = 1
        for _ in range(_DEPTH):
            found = self.resolve(number)
            if found.kind is not BtfKind.ARRAY:
                return repeat * (8 if found.kind is BtfKind.PTR else found.size)
            repeat, number = repeat * found.count, found.target
        raise BtfError(f"BTF type {number} is a circle of arrays")

    def section(self, name: str) -> BtfType | None:
        """A data section (`.rodata`, `.maps`): its members are the variables in it. None: no such section."""
        return next((t for t in self.types if t.kind is BtfKind.DATASEC and t.name == name), None)

    def is_big_endian(self, number: int) -> bool:
        """Whether a field is declared in network order, by the typedefs __be16, __be32, __be64."""
        found = self.type(number)
        for _ in range(_DEPTH):
            if found.kind is BtfKind.TYPEDEF and found.name.startswith("__be"):
                return True
            if found.kind not in _WRAPPERS and found.kind is not BtfKind.ARRAY:
                return False
            found = self.type(found.target)
        raise BtfError(f"BTF type {number} is a circle")

    def _string(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def _parse(self, raw: bytes, position: int) -> tuple[BtfType, int]:
        name_at, info, size_or_type = struct.unpack_from("<III", raw, position)
        kind, count, flagged = BtfKind(info >> 24 & 0x1F), info & 0xFFFF, bool(info >> 31)
        name = self._string(name_at)
        once, each = _EXTRA.get(kind, (0, 0))
        body = position + 12
        after = body + once + each * count
        if kind is BtfKind.INT:
            (word,) = struct.unpack_from("<I", raw, body)
            return BtfType(kind, name, size_or_type, encoding=word >> 24 & 0xF), after
        if kind is BtfKind.ARRAY:
            element, _, length = struct.unpack_from("<III", raw, body)
            return BtfType(kind, name, target=element, count=length), after
        if kind in (BtfKind.STRUCT, BtfKind.UNION):
            return BtfType(kind, name, size_or_type, members=self._members(raw, body, count, flagged)), after
        if kind is BtfKind.DATASEC:
            variables = (struct.unpack_from("<III", raw, body + 12 * i) for i in range(count))
            members = tuple(Member(self.types[v].name, v, offset) for v, offset, _ in variables)
            return BtfType(kind, name, size_or_type, members=members), after
        if kind in (BtfKind.ENUM, BtfKind.ENUM64, BtfKind.FLOAT):
            return BtfType(kind, name, size_or_type), after
        return BtfType(kind, name, target=size_or_type), after

    def _members(self, raw: bytes, body: int, count: int, flagged: bool) -> tuple[Member, ...]:
        members = []
        for i in range(count):
            name_at, number, bit_offset = struct.unpack_from("<III", raw, body + 12 * i)
            bits = bit_offset >> 24 if flagged else 0
            bit_offset = bit_offset & 0xFFFFFF if flagged else bit_offset
            members.append(Member(self._string(name_at), number, bit_offset // 8, bits))
        return tuple(members)
