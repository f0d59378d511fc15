"""The one place that makes, pins, opens and deletes maps.

Under the root, in a bpffs: `maps/<name>` pins, `old/<name>` maps whose layout has changed, `layouts/<name>` links that
name the fields a map was made with, `owners/<name>` locks. (bpffs forbids dots in names.)
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import structlog

from ciliate.kernel import bpffs, syscall
from ciliate.kernel.errors import KernelError
from ciliate.maps import ownership
from ciliate.maps.layout import Layout, LayoutChanged, layout_hash, layout_of_fd, layout_of_spec
from ciliate.maps.map import Map
from ciliate.maps.spec import MapSpec

_log = structlog.get_logger("maps")
_FRESH = "-new"  # of a pin that is about to take its place


class MapDeclarationError(ValueError):
    """Two declarations of one map contradict each other, or a map is opened that nobody declared."""


class MapRegistry:
    """Maps by name. `declare` is pure; `create` makes or adopts what this process has declared, and owns it.

    A process that only reads declares nothing: it opens maps by their specs.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "maps"
        self.changes: list[LayoutChanged] = []
        self._specs: dict[str, MapSpec] = {}
        self._owners: dict[str, str] = {}
        self._owned: dict[str, Map] = {}
        self._locks: dict[str, int] = {}

    def declare(self, spec: MapSpec, owner: str) -> None:
        """Say that a plugin owns a map. Twice the same is harmless; MapDeclarationError names a contradiction."""
        known = self._specs.get(spec.name)
        if known is not None:
            other = self._owners[spec.name]
            if other != owner:
                raise MapDeclarationError(f"map {spec.name}: {owner} declares it, but it belongs to {other}")
            if layout_hash([known]) != layout_hash([spec]):
                both = f"as {layout_of_spec(known)} and as {layout_of_spec(spec)}"
                raise MapDeclarationError(f"map {spec.name}: {owner} declares it twice, {both}")
        self._specs[spec.name] = spec
        self._owners[spec.name] = owner

    def specs(self) -> dict[str, MapSpec]:
        """Declared maps by name."""
        return dict(self._specs)

    def owner(self, name: str) -> str:
        """The plugin that declared a map. Raises MapDeclarationError."""
        return self._owners[self._spec(name).name]

    def create(self) -> list[LayoutChanged]:
        """Make or adopt every declared map that this process does not own yet; what had to give way to a new layout.

        A pin with an equal layout is adopted with its content. Another is moved to `old/` and a new, empty map takes
        its place; the log names it. Raises KernelError (no bpffs, no permission), MapOwnedError.
        """
        wanted = [spec for name, spec in self._specs.items() if name not in self._owned]
        if not wanted:
            return []
        self._make_folders()
        changes = [change for spec in wanted if (change := self._create(spec)) is not None]
        for change in changes:
            _log.warning("map_layout_changed", map=change.name, writer=change.writer.value, detail=str(change))
        self.changes += changes
        return changes

    def open(self, which: str | MapSpec, writable: bool = False) -> Map:
        """A map: this process's own, or (for reading only) another's, by its spec or declared name.

        A map of one's own is shared, not opened anew: don't close it. Raises KernelError (ENOENT: nobody has made it
        yet), MapOwnedError (writable, but not this process's), MapDeclarationError (the pin has another layout).
        """
        spec = self._spec(which) if isinstance(which, str) else which
        owned = self._owned.get(spec.name)
        if owned is not None:
            return owned
        if writable:
            raise ownership.MapOwnedError(f"map {spec.name} is not this process's: own it by declare() and create()")
        fd = syscall.get_pinned(self.folder / spec.name, read_only=True)
        found = layout_of_fd(fd)
        if found != layout_of_spec(spec):
            os.close(fd)
            raise MapDeclarationError(
                f"map {spec.name} at {self.folder} is {found}, not {layout_of_spec(spec)}: another version's"
            )
        return Map(spec, fd, writable=False)

    def names(self) -> list[str]:
        """Names of all pinned maps, whoever owns them; [] if there is no folder."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            pins = (entry.name for entry in os.scandir(self.folder) if entry.is_file(follow_symlinks=False))
            return sorted(name for name in pins if not name.endswith(_FRESH))
        return []

    def repin(self) -> list[str]:
        """Pin anew the maps of this process whose pins somebody has removed; their names.

        Without pins they would end with this process. Raises KernelError (the bpffs is gone), MapOwnedError (another
        process has made them anew meanwhile).
        """
        lost = [name for name in self._owned if not os.path.lexists(self.folder / name)]
        if lost:
            self._make_folders()
        for name in lost:
            if not (self.root / "owners" / name).exists():  # the lock that we hold went with its folder
                lock = ownership.acquire(self.root / "owners", name)
                os.close(self._locks[name])
                self._locks[name] = lock
            self._mark_fields(self._specs[name])
            syscall.pin(self._owned[name].fd, self.folder / name)
        return lost

    def drop_old(self, names: Iterable[str] | None = None) -> None:
        """Let go of maps whose layout had changed, all of them or some: nobody reads them through any more."""
        with contextlib.suppress(FileNotFoundError):
            for entry in list((self.root / "old").iterdir()):
                if names is None or entry.name in names:
                    _remove(entry)

    def delete_all(self) -> None:
        """Uninstall: unpin every map under the root, whoever made it, and the registry's folders. Idempotent."""
        self.close()
        for folder in ("maps", "old", "layouts", "owners"):
            _remove(self.root / folder)

    def close(self) -> None:
        """Close the maps of this process and give up owning them; the pins stay."""
        for owned in self._owned.values():
            owned.close()
        for lock in self._locks.values():
            os.close(lock)
        self._owned.clear()
        self._locks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spec(self, name: str) -> MapSpec:
        if name not in self._specs:
            raise MapDeclarationError(
                f"map {name} is declared by nobody here: known are {', '.join(sorted(self._specs))}"
            )
        return self._specs[name]

    def _make_folders(self) -> None:
        for folder in ("", "maps", "old", "layouts", "owners"):  # the root first: it is named where a bpffs lacks
            bpffs.ensure_folder(self.root / folder)

    def _mark_fields(self, spec: MapSpec) -> None:
        link = self.root / "layouts" / spec.name
        _remove(link)
        link.symlink_to(layout_hash([spec]))

    def _create(self, spec: MapSpec) -> LayoutChanged | None:
        if spec.name not in self._locks:
            self._locks[spec.name] = ownership.acquire(self.root / "owners", spec.name)
        fd, old = self._pinned(spec)
        if fd is not None and old == layout_of_spec(spec) and self._same_fields(spec):
            self._owned[spec.name] = Map(spec, fd)
            return None
        if fd is not None:
            os.close(fd)
        self._owned[spec.name] = self._make(spec, aside=old is not None)
        if old is None:
            return None
        return LayoutChanged(spec.name, spec.writer, old, layout_of_spec(spec), self.root / "old" / spec.name)

    def _pinned(self, spec: MapSpec) -> tuple[int | None, Layout | None]:
        """What is pinned under a map's name: its descriptor and layout; (None, not a map) for what is stray."""
        path = self.folder / spec.name
        if not os.path.lexists(path):
            return None, None
        try:
            fd = syscall.get_pinned(path)
        except KernelError as error:
            if error.errno == errno.EPERM:
                raise
            return None, Layout(-1, 0, 0, 0, 0)
        return fd, layout_of_fd(fd)

    def _same_fields(self, spec: MapSpec) -> bool:
        link = self.root / "layouts" / spec.name
        return not link.is_symlink() or str(link.readlink()) == layout_hash([spec])

    def _make(self, spec: MapSpec, aside: bool) -> Map:
        """Make and pin a map. The new pin is complete before the old one moves, so a crash leaves one or the other."""
        fresh, path = self.folder / f"{spec.name}{_FRESH}", self.folder / spec.name
        _remove(fresh)
        layout = layout_of_spec(spec)
        fd = syscall.map_create(
            layout.kind, layout.key_size, layout.value_size, layout.max_entries, layout.flags, spec.name
        )
        try:
            syscall.pin(fd, fresh)
            if aside:
                _remove(self.root / "old" / spec.name)
                path.rename(self.root / "old" / spec.name)
            self._mark_fields(spec)
            fresh.rename(path)
        except BaseException:
            os.close(fd)
            raise
        return Map(spec, fd)


def _remove(path: Path) -> None:
    """Remove a pin, a link or a folder with all that is in it; nothing if it is not there."""
    if path.is_dir() and not path.is_symlink():
        for entry in list(path.iterdir()):
            _remove(entry)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
