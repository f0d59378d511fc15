"""One object file, opened by libbpf: its maps and constants can be set up, then it is loaded once."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from ciliate.kernel.btf import Btf, BtfType
from ciliate.programs import libbpf

_INSTRUCTION = np.dtype([("code", "u1"), ("registers", "u1"), ("offset", "<i2"), ("imm", "<i4")])
_CALL = 0x85  # BPF_JMP | BPF_CALL; source register 0: a helper

Constant = bool | int | bytes | np.generic | np.ndarray[Any, Any]
"""A value for a variable of .rodata: a number, or bytes or an array of its exact size."""


class LoadError(RuntimeError):
    """An object file can't be opened, set up or loaded; the text says which part and why."""


class VerifierError(LoadError):
    """The kernel's verifier refused a program. `log` is all that libbpf said; the text ends with its last lines."""

    def __init__(self, what: str, log: str) -> None:
        self.log = log
        tail = "\n".join(log.strip().splitlines()[-25:])
        super().__init__(f"{what}: the verifier refused it\n{tail}")


@dataclass(frozen=True)
class ElfMap:
    """A map as the object file defines it. `key_type` and `value_type` are BTF numbers, 0 if only sizes are given."""

    name: str
    handle: int
    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    key_type: int
    value_type: int


class ElfObject:
    """An open object file; a context manager. Nothing is in the kernel before `load`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lib = libbpf.library()
        with libbpf.captured_log() as log:
            self._object = self._lib.bpf_object__open_file(os.fsencode(path), None)
            if not self._object:
                number = ctypes.get_errno()
                said = " ".join(log).strip() or os.strerror(number)
                hint = ": build it with `make bpf`" if number == errno.ENOENT else ""
                raise LoadError(f"BPF object {path} can't be opened{hint}: {said}")
        size = ctypes.c_uint32()
        raw = None
        if handle := self._lib.bpf_object__btf(self._object):
            raw = self._lib.btf__raw_data(handle, ctypes.byref(size))
        if not raw:
            self.close()
            raise LoadError(f"BPF object {path} has no BTF: compile it with clang -g")
        self.btf = Btf(ctypes.string_at(raw, size.value))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the object; duplicated program descriptors stay. Closing twice is harmless."""
        if self._object:
            self._lib.bpf_object__close(self._object)
            self._object = None

    def maps(self) -> list[ElfMap]:
        """Maps of the section .maps, without the sections that libbpf makes maps of."""
        return [self._describe(handle) for handle in self._handles() if not self._lib.bpf_map__is_internal(handle)]

    def reuse(self, elf_map: ElfMap, fd: int) -> None:
        """Use an existing map in place of the object's own."""
        if self._lib.bpf_map__reuse_fd(elf_map.handle, fd) != 0:
            raise LoadError(f"{self.path.name}: map {elf_map.name}: libbpf can't use the registry's map")

    def set_constants(self, constants: Mapping[str, Constant]) -> None:
        """Set `volatile const` variables. Raises LoadError: an unknown name, a wrong size, a number out of range."""
        if not constants:
            return
        section = self.btf.section(".rodata")
        variables = {member.name: member for member in section.members} if section else {}
        handle = next((h for h in self._handles() if self._is_rodata(h)), None)
        size = ctypes.c_size_t()
        address = self._lib.bpf_map__initial_value(handle, ctypes.byref(size)) if handle else None
        content = bytearray(ctypes.string_at(address, size.value)) if address else bytearray()
        for name, value in constants.items():
            variable = variables.get(name)
            if variable is None or not content:
                known = ", ".join(sorted(variables)) or "none"
                raise LoadError(f"{self.path.name} has no constant {name} in .rodata: it has {known}")
            raw = self._constant(name, self.btf.resolve(variable.type), self.btf.size(variable.type), value)
            content[variable.offset : variable.offset + len(raw)] = raw
        if self._lib.bpf_map__set_initial_value(handle, bytes(content), len(content)) != 0:
            raise LoadError(f"{self.path.name}: libbpf can't set .rodata")

    def called(self) -> set[int]:
        """Numbers of the kernel's helpers that the programs call. For an object that has been loaded."""
        found: set[int] = set()
        for program in self._next(self._lib.bpf_object__next_program):
            size = self._lib.bpf_program__insn_cnt(program) * _INSTRUCTION.itemsize
            code = np.frombuffer(ctypes.string_at(self._lib.bpf_program__insns(program), size), _INSTRUCTION)
            found.update(code["imm"][(code["code"] == _CALL) & (code["registers"] >> 4 == 0)].tolist())
        return found

    def load(self) -> dict[str, int]:
        """Load everything; programs' descriptors by name, the caller's to close. Raises VerifierError, LoadError."""
        with libbpf.captured_log() as log:
            result = self._lib.bpf_object__load(self._object)
            said = "".join(log)
        if result != 0:
            if "BEGIN PROG LOAD LOG" in said:
                raise VerifierError(f"loading {self.path}", said)
            raise LoadError(f"loading {self.path}: {os.strerror(-result)}\n{said.strip()}")
        lib = self._lib
        return {
            lib.bpf_program__name(program).decode(): fcntl.fcntl(lib.bpf_program__fd(program), fcntl.F_DUPFD_CLOEXEC, 3)
            for program in self._next(lib.bpf_object__next_program)
        }

    def _next(self, step: Any) -> Iterator[int]:
        handle = step(self._object, None)
        while handle:
            yield handle
            handle = step(self._object, handle)

    def _handles(self) -> Iterator[int]:
        return self._next(self._lib.bpf_object__next_map)

    def _is_rodata(self, handle: int) -> bool:
        name: bytes = self._lib.bpf_map__name(handle)
        return bool(self._lib.bpf_map__is_internal(handle)) and name.endswith(b".rodata")

    def _describe(self, handle: int) -> ElfMap:
        lib = self._lib
        return ElfMap(
            lib.bpf_map__name(handle).decode(),
            handle,
            lib.bpf_map__type(handle),
            lib.bpf_map__key_size(handle),
            lib.bpf_map__value_size(handle),
            lib.bpf_map__max_entries(handle),
            lib.bpf_map__map_flags(handle),
            lib.bpf_map__btf_key_type_id(handle),
            lib.bpf_map__btf_value_type_id(handle),
        )

    def _constant(self, name: str, c_type: BtfType, size: int, value: Constant) -> bytes:
        what = f"{self.path.name}: constant {name} ({c_type.name or c_type.kind.name.lower()}, {size} bytes)"
        if isinstance(value, int):
            try:
                return int(value).to_bytes(size, "little", signed=bool(c_type.encoding & 1) and value < 0)
            except OverflowError as error:
                raise LoadError(f"{what}: {value} does not fit") from error
        raw = value if isinstance(value, bytes) else value.tobytes()
        if len(raw) != size:
            raise LoadError(f"{what}: {len(raw)} bytes given")
        return raw
