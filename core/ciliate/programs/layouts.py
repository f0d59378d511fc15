"""C structs of an object file against numpy dtypes: the two sides of a map must mean the same bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ciliate.kernel.btf import Btf, BtfKind, BtfType, Member


class LayoutMismatchError(ValueError):
    """A map's C struct and its numpy dtype disagree; the text names the map, both sides and every difference."""


def check_layout(btf: Btf, number: int, dtype: np.dtype[Any], what: str) -> None:
    """Compare a C type with a dtype: size, and of structs each field's name, offset, size and byte order.

    Fields named pad... may be missing on either side. Raises LayoutMismatchError.
    """
    differences = list(_differences(btf, number, dtype))
    if differences:
        c_type = btf.resolve(number)
        name = f"{c_type.kind.name.lower()} {c_type.name or '(unnamed)'}"
        raise LayoutMismatchError(
            f"{what}: C has {name} of {btf.size(number)} bytes, Python a dtype of {dtype.itemsize}: "
            + "; ".join(differences)
        )


def _differences(btf: Btf, number: int, dtype: np.dtype[Any]) -> list[str]:
    found = []
    if btf.size(number) != dtype.itemsize:
        found.append(f"sizes differ, {btf.size(number)} in C and {dtype.itemsize} in Python")
    c_type = btf.resolve(number)
    if dtype.names is None or c_type.kind not in (BtfKind.STRUCT, BtfKind.UNION):
        return found
    c_fields = _flatten(btf, c_type)
    in_python = {name: field for name, field in (dtype.fields or {}).items() if not name.startswith("pad")}
    for name, field in in_python.items():
        found += _field_differences(btf, name, field[0], field[1], c_fields)
    alternatives = {member.offset for name, member in c_fields.items() if name in in_python}
    found += [
        f"field {name} at {member.offset} is only in C"
        for name, member in c_fields.items()
        if name not in in_python and not name.startswith("pad") and member.offset not in alternatives
    ]
    return found


def _field_differences(
    btf: Btf, name: str, dtype: np.dtype[Any], offset: int, c_fields: dict[str, Member]
) -> list[str]:
    member = c_fields.get(name)
    if member is None:
        return [f"field {name} at {offset} is only in Python"]
    if member.bits:
        return [f"field {name} is a bit field in C"]
    size = btf.size(member.type)
    if (member.offset, size) != (offset, dtype.itemsize):
        return [f"field {name} is {size} bytes at {member.offset} in C, {dtype.itemsize} bytes at {offset} in Python"]
    if btf.is_big_endian(member.type) and dtype.base.byteorder != ">":
        return [f"field {name} is in network order in C, not in Python"]
    return [f"{name}: {difference}" for difference in _differences(btf, member.type, dtype)] if dtype.names else []


def _flatten(btf: Btf, c_type: BtfType, base: int = 0) -> dict[str, Member]:
    """Fields by name, those of unnamed inner structs and unions among them; offsets from the outermost."""
    fields: dict[str, Member] = {}
    for member in c_type.members:
        inner = btf.resolve(member.type)
        if not member.name and inner.kind in (BtfKind.STRUCT, BtfKind.UNION):
            fields |= _flatten(btf, inner, base + member.offset)
        else:
            fields[member.name] = Member(member.name, member.type, base + member.offset, member.bits)
    return fields


def dtype_of(btf: Btf, number: int, size: int) -> np.dtype[Any]:
    """A dtype for a C type that Python has no layout of; plain bytes of the size where none can be made."""
    if number == 0:
        return _bytes(size)
    c_type = btf.resolve(number)
    if c_type.kind in (BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64) and c_type.size in (1, 2, 4, 8):
        order = ">" if btf.is_big_endian(number) else "<"
        return np.dtype(f"{order}{'i' if c_type.encoding & 1 else 'u'}{c_type.size}")
    if c_type.kind is BtfKind.ARRAY:
        return np.dtype((dtype_of(btf, c_type.target, btf.size(c_type.target)), c_type.count))
    if c_type.kind is not BtfKind.STRUCT or any(member.bits or not member.name for member in c_type.members):
        return _bytes(size)
    return np.dtype(
        {
            "names": [member.name for member in c_type.members],
            "formats": [dtype_of(btf, member.type, btf.size(member.type)) for member in c_type.members],
            "offsets": [member.offset for member in c_type.members],
            "itemsize": c_type.size,
        }
    )


def _bytes(size: int) -> np.dtype[Any]:
    """Plain bytes; four or eight of them as a number, as most maps' keys and values are."""
    return np.dtype(f"<u{size}") if size in (4, 8) else np.dtype([("raw", "u1", size)])
