"""Debian's libbpf (1.1 and later) through ctypes: open an object, set it up, load it. No policy.

libbpf reports through a callback of the process: `captured_log` collects what it says meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import functools
import platform
import threading
from collections.abc import Iterator
from typing import Any

_P = ctypes.c_void_p
_Z = ctypes.c_size_t
_INT = ctypes.c_int
_STR = ctypes.c_char_p
_U32 = ctypes.c_uint32

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "bpf_object__open_file": (_P, [_STR, _P]),
    "bpf_object__load": (_INT, [_P]),
    "bpf_object__close": (None, [_P]),
    "bpf_object__btf": (_P, [_P]),
    "bpf_object__next_map": (_P, [_P, _P]),
    "bpf_object__next_program": (_P, [_P, _P]),
    "btf__raw_data": (_P, [_P, ctypes.POINTER(_U32)]),
    "bpf_map__name": (_STR, [_P]),
    "bpf_map__is_internal": (ctypes.c_bool, [_P]),
    "bpf_map__type": (_INT, [_P]),
    "bpf_map__key_size": (_U32, [_P]),
    "bpf_map__value_size": (_U32, [_P]),
    "bpf_map__max_entries": (_U32, [_P]),
    "bpf_map__map_flags": (_U32, [_P]),
    "bpf_map__btf_key_type_id": (_U32, [_P]),
    "bpf_map__btf_value_type_id": (_U32, [_P]),
    "bpf_map__reuse_fd": (_INT, [_P, _INT]),
    "bpf_map__initial_value": (_P, [_P, ctypes.POINTER(_Z)]),
    "bpf_map__set_initial_value": (_INT, [_P, _P, _Z]),
    "bpf_program__name": (_STR, [_P]),
    "bpf_program__section_name": (_STR, [_P]),
    "bpf_program__fd": (_INT, [_P]),
    "bpf_program__insns": (_P, [_P]),
    "bpf_program__insn_cnt": (_Z, [_P]),
}
_PRINT = ctypes.CFUNCTYPE(_INT, _INT, _STR, _P)
_VA_LIST = 24 if platform.machine() == "x86_64" else 32
_lock = threading.RLock()
_lines: list[str] = []


class LibbpfMissingError(RuntimeError):
    """There is no libbpf on this machine."""


@functools.cache
def library() -> ctypes.CDLL:
    """libbpf with its functions' signatures. Raises LibbpfMissingError."""
    try:
        found = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise LibbpfMissingError(f"libbpf.so.1 can't be opened: {error} (Debian: apt install libbpf1)") from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    found.libbpf_set_print(_on_print)
    return found


def _format(level: int, text: bytes, arguments: int | None) -> int:
    """libbpf's print callback. A va_list is a pointer to a small structure on x86-64 and arm64; one use spends it."""
    if level >= 2:  # debug
        return 0
    libc = ctypes.CDLL(None)
    copy = ctypes.create_string_buffer(ctypes.string_at(arguments, _VA_LIST), _VA_LIST) if arguments else None
    length = int(libc.vsnprintf(None, _Z(0), _STR(text), copy))
    buffer = ctypes.create_string_buffer(length + 1)
    libc.vsnprintf(buffer, _Z(length + 1), _STR(text), _P(arguments))
    _lines.append(buffer.value.decode(errors="replace"))
    return length


_on_print = _PRINT(_format)


@contextlib.contextmanager
def captured_log() -> Iterator[list[str]]:
    """What libbpf says meanwhile, as a list that grows. One thread at a time; others wait."""
    with _lock:
        library()
        _lines.clear()
        yield _lines
