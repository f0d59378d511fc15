"""Program sets: all programs of one object file, loaded together, pinned together, replaced one by one."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self

import numpy as np
import structlog

from ciliate.kernel import bpffs
from ciliate.kernel.errors import KernelError
from ciliate.maps.layout import layout_hash, layout_of_spec
from ciliate.maps.registry import MapRegistry
from ciliate.maps.spec import MapFlag, MapKind, MapSpec, Writer
from ciliate.programs.elf import Constant, ElfMap, ElfObject, LoadError
from ciliate.programs.layouts import check_layout, dtype_of
from ciliate.programs.program import Program

OWNER = "programs"
"""The owner of maps that only the node's own programs know."""
PUBLIC = frozenset({"point_packet"})
"""Maps that any plugin's programs may read, whoever owns them."""
_UNDECLARED = "Known to programs only."
_MARK = "set"
_log = structlog.get_logger("programs")


class ProgramSet:
    """Programs by name. `hash` changes with the object file, the constants, the maps and their layouts.

    `maps`: names of the maps they run on (empty if unknown); `called`: the helpers they call (of a set loaded here).
    """

    def __init__(
        self,
        programs: Mapping[str, Program],
        set_hash: str,
        maps: frozenset[str] = frozenset(),
        called: frozenset[int] = frozenset(),
    ) -> None:
        self._programs = dict(programs)
        self.hash = set_hash
        self.maps = maps
        self.called = called

    @classmethod
    def load(
        cls, path: Path, registry: MapRegistry, rodata: Mapping[str, Constant] | None = None, owner: str = OWNER
    ) -> Self:
        """Load an object file on the registry's maps, which must have been declared; those missing are created.

        Maps that nobody declared are made from the object's definition, as the owner's; a plugin's programs may use
        no other's but PUBLIC ones. Raises LoadError, VerifierError (with the log's tail), LayoutMismatchError (C
        struct against dtype), KernelError.
        """
        with ElfObject(path) as elf:
            return cls._load(elf, registry, rodata or {}, owner)

    @classmethod
    def load_or_adopt(
        cls,
        path: Path,
        registry: MapRegistry,
        folder: Path,
        rodata: Mapping[str, Constant] | None = None,
        test: Callable[[Self], None] = lambda _: None,
    ) -> tuple[Self, bool]:
        """The pinned set if it is current, else a freshly loaded and pinned one; True if it was loaded.

        Current: pinned with the same hash, that is the same object, constants and maps. A set that can't be loaded,
        or that fails its test (which raises), leaves the pins as they were.
        """
        with ElfObject(path) as elf:
            maps = _prepare_maps(elf, registry)
            if (pinned := cls.open_pinned(folder, _hash(elf, registry, rodata or {}))) is not None:
                pinned.maps = frozenset(one.name for one in maps)
                return pinned, False
            loaded = cls._load(elf, registry, rodata or {})
        try:
            test(loaded)
            loaded.pin(folder)
        except BaseException:
            loaded.close()
            raise
        return loaded, True

    @classmethod
    def open_pinned(cls, folder: Path, set_hash: str | None = None) -> Self | None:
        """The set pinned in a folder, without libbpf; None if there is none, or (set_hash given) another one."""
        try:
            mark = str((folder / _MARK).readlink())
            if set_hash is not None and mark != set_hash:
                return None
            paths = [entry for entry in folder.iterdir() if not entry.is_symlink()]
            return cls({path.name: Program.open_pinned(path) for path in paths}, mark)
        except (OSError, KernelError) as error:
            if not isinstance(error, FileNotFoundError):
                _log.warning("pinned_programs_unreadable", folder=str(folder), error=str(error))
            return None

    @property
    def names(self) -> list[str]:
        """Names of the programs, sorted."""
        return sorted(self._programs)

    def program(self, name: str) -> Program:
        """A program by the name of its C function. Raises LoadError."""
        if name not in self._programs:
            raise LoadError(f"the program set has no program {name}: it has {', '.join(self.names)}")
        return self._programs[name]

    def pin(self, folder: Path) -> None:
        """Pin each program as folder/<name>, replacing the set there; it is marked whole only at the end."""
        bpffs.ensure_folder(folder)
        (folder / _MARK).unlink(missing_ok=True)
        for name, program in self._programs.items():
            program.pin(folder / name)
        for stale in [entry for entry in folder.iterdir() if entry.name not in self._programs]:
            stale.unlink()
        (folder / _MARK).symlink_to(self.hash)

    def repin(self, folder: Path) -> bool:
        """Pin the set anew if somebody has removed a pin of it; whether that was so."""
        if all(os.path.lexists(folder / name) for name in (_MARK, *self._programs)):
            return False
        self.pin(folder)
        return True

    def close(self) -> None:
        """Let go of the programs; attached or pinned, they stay in the kernel."""
        for program in self._programs.values():
            program.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def _load(cls, elf: ElfObject, registry: MapRegistry, rodata: Mapping[str, Constant], owner: str = OWNER) -> Self:
        maps = _prepare_maps(elf, registry, owner)
        set_hash = _hash(elf, registry, rodata)
        elf.set_constants(rodata)
        with contextlib.ExitStack() as opened:
            for elf_map in elf.maps():
                if elf_map in maps:
                    found = registry.open(elf_map.name, writable=True)
                else:
                    found = registry.open(_spec_of(elf, elf_map))
                    if not found.writable:
                        opened.callback(found.close)
                elf.reuse(elf_map, found.fd)
            programs = {name: Program(name, fd) for name, fd in elf.load().items()}
        return cls(programs, set_hash, frozenset(one.name for one in maps), frozenset(elf.called()))


def unpin(folder: Path) -> None:
    """Uninstall: remove a set's pins and their folder; attached programs go on until they are detached. Idempotent."""
    with contextlib.suppress(FileNotFoundError):
        for entry in list(folder.iterdir()):
            entry.unlink()
        folder.rmdir()


def _prepare_maps(elf: ElfObject, registry: MapRegistry, owner: str = OWNER) -> list[ElfMap]:
    """Check the object's maps against the declared ones, declare the others, make what is missing."""
    maps = [elf_map for elf_map in elf.maps() if owner == OWNER or elf_map.name not in PUBLIC]
    declared = registry.specs()
    for elf_map in maps:
        spec = declared.get(elf_map.name)
        if spec is not None and registry.owner(spec.name) != owner and owner != OWNER:
            theirs = registry.owner(spec.name)
            raise LoadError(f"{elf.path.name}: map {spec.name} is {theirs}'s, not {owner}'s: give yours another name")
        if spec is None or spec.doc == _UNDECLARED:
            registry.declare(_spec_of(elf, elf_map), owner)
        else:
            _check(elf, elf_map, spec)
    registry.create()
    return maps


def _check(elf: ElfObject, elf_map: ElfMap, spec: MapSpec) -> None:
    what = f"{elf.path.name}: map {spec.name}"
    wanted = layout_of_spec(spec)
    found = (elf_map.kind, elf_map.key_size, elf_map.value_size)
    for side, number, dtype in (("key", elf_map.key_type, spec.key), ("value", elf_map.value_type, spec.value)):
        if number:
            check_layout(elf.btf, number, dtype, f"{what}: {side}")
    if found != (wanted.kind, wanted.key_size, wanted.value_size):
        raise LoadError(
            f"{what}: C has type {found[0]}, key {found[1]} and value {found[2]} bytes; declared is {wanted}"
        )


def _spec_of(elf: ElfObject, elf_map: ElfMap) -> MapSpec:
    what = f"{elf.path.name}: map {elf_map.name}, which no plugin declares"
    try:
        kind, flags = MapKind(elf_map.kind), MapFlag(elf_map.flags)
        key = dtype_of(elf.btf, elf_map.key_type, elf_map.key_size)
        value = dtype_of(elf.btf, elf_map.value_type, elf_map.value_size)
        return MapSpec(elf_map.name, kind, key, value, elf_map.max_entries, _UNDECLARED, flags, Writer.PROGRAM)
    except ValueError as error:
        raise LoadError(f"{what}: {error}") from error


def _hash(elf: ElfObject, registry: MapRegistry, rodata: Mapping[str, Constant]) -> str:
    """32 hexadecimal digits. The maps' kernel ids are in it: a set on maps that were made anew is not current."""

    def parts() -> Iterator[bytes]:
        yield elf.path.read_bytes()
        for name in sorted(rodata):
            value = rodata[name]
            yield f"\n{name}=".encode() + (
                str(value).encode() if isinstance(value, int) else np.asarray(value).tobytes()
            )
        specs = registry.specs()
        used = [specs[elf_map.name] for elf_map in elf.maps() if elf_map.name in specs]
        yield layout_hash(used).encode()
        for spec in sorted(used, key=lambda spec: spec.name):
            yield f" {registry.open(spec.name).info().id}".encode()

    digest = hashlib.sha256()
    for part in parts():
        digest.update(part)
    return digest.hexdigest()[:32]
