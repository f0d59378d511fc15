"""The one place that makes, pins, opens and deletes maps.

Under the root, in a bpffs: `maps/<name>` pins, `new/<name>` maps of a changed layout until `swap`, `old/<name>` what
they took the place of, `layouts/<name>` links that name the fields a map was made with, `owners/<name>` locks, in them
a link `made-by` where a map goes with its plugin. (bpffs forbids dots in names.)
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from ciliate.maps.spec import MapFlag, MapSpec, Writer

_log = structlog.get_logger("maps")
_FRESH, _OLD = "-new", "-old"  # of a pin that is about to take its place, of a link that did
_MARK = "made-by"
_FOLDERS = ("maps", "new", "old", "layouts", "owners")


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
        self.leaving: dict[str, str] = {}  # plugins whose maps go when they are disabled, and the process they are in
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
        """Make or adopt every declared map that this process does not own yet; those whose layout has changed.

        A pin with an equal layout is adopted with its content. Beside another a new, empty map is made, which this
        process opens from now on; programs that are attached go on with the pinned one until `swap`. Raises
        KernelError (no bpffs, no permission), MapOwnedError.
        """
        wanted = [spec for name, spec in self._specs.items() if name not in self._owned]
        if not wanted:
            return []
        self._make_folders()
        wanted.sort(key=lambda spec: bool(spec.predecessor_of))
        changes = [change for spec in wanted if (change := self._create(spec)) is not None]
        for change in changes:
            _log.warning("map_layout_changed", map=change.name, writer=change.writer.value, detail=str(change))
        self.changes += changes
        return changes

    def swap(self, names: Iterable[str] | None = None) -> None:
        """Pin new maps in the place of those whose layout had changed, all or some, once their programs are attached.

        What gave way is kept in `old/` until `drop_old`.
        """
        chosen = [change for change in self.changes if names is None or change.name in names]
        self.changes = [change for change in self.changes if change not in chosen]
        layouts = self.root / "layouts"
        for change in chosen:
            name = change.name
            _remove(change.kept)
            (self.folder / name).rename(change.kept)
            if (layouts / name).is_symlink():
                (layouts / name).rename(layouts / f"{name}{_OLD}")
            (layouts / f"{name}{_FRESH}").rename(layouts / name)
            # whoever dies before the next line finds the map in `new`
            (self.root / "new" / name).rename(self.folder / name)

    def keep_old(self) -> list[LayoutChanged]:
        """The programs for new maps were refused: go back to pinned ones where that can be; what stays changed.

        It can for tables that programs write, if only their sizes differ: nobody has filled the new ones.
        """
        for change in list(self.changes):
            owned = self._owned[change.name]
            spec = dataclasses.replace(owned.spec, max_entries=max(1, change.old.max_entries))
            fields = _fields(self.root / "layouts" / change.name)
            if change.writer is Writer.USER or "HASH" not in spec.kind.name or layout_of_spec(spec) != change.old:
                continue
            if fields in (None, layout_hash([spec])):
                fd = syscall.get_pinned(self.folder / change.name)
                os.dup2(fd, owned.fd, inheritable=False)  # who has opened the map by now has the old one from now on
                os.close(fd)
                owned.spec = spec
                _remove(self.root / "new" / change.name)
                self.changes.remove(change)
        return self.changes

    def kept(self) -> list[str]:
        """Names of the maps in `old/`."""
        folder = self.root / "old"
        return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []

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
        """Let go of maps whose layout had changed, all of them or some: nobody reads them through any more.

        Maps that stood for them (`predecessor_of`) are empty ones from now on, for sets loaded from now on.
        """
        with contextlib.suppress(FileNotFoundError):
            for entry in list((self.root / "old").iterdir()):
                if names is None or entry.name in names:
                    _remove(entry)
        for spec in self._specs.values():
            if spec.predecessor_of and spec.name in self._owned:
                self._owned.pop(spec.name).close()
        self.create()

    def drop_left(self, process: str, enabled: Iterable[str]) -> list[str]:
        """Delete what earlier lives of a process made for `leaving` plugins that are enabled no more; its names."""
        dropped = []
        for name in self.names():
            mark = self.root / "owners" / name / _MARK
            maker, _, plugin = str(mark.readlink() if mark.is_symlink() else "").partition(":")
            if maker != process or plugin in enabled:
                continue
            with contextlib.suppress(ownership.MapOwnedError):
                lock = ownership.acquire(self.root / "owners", name)
                for folder in _FOLDERS:
                    _remove(self.root / folder / name)
                os.close(lock)
                dropped.append(name)
        return dropped

    def delete_all(self) -> None:
        """Uninstall: unpin every map under the root, whoever made it, and the registry's folders. Idempotent."""
        self.close()
        for folder in _FOLDERS:
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
        for folder in ("", *_FOLDERS):  # the root first: it is named where a bpffs lacks
            bpffs.ensure_folder(self.root / folder)

    def _mark_fields(self, spec: MapSpec) -> None:
        link = self.root / "layouts" / spec.name
        _remove(link)
        link.symlink_to(layout_hash([spec]))

    def _create(self, spec: MapSpec) -> LayoutChanged | None:
        if spec.name not in self._locks:
            self._locks[spec.name] = ownership.acquire(self.root / "owners", spec.name)
            self._mark(spec.name)
        if spec.predecessor_of and (found := self._predecessor(spec)) is not None:
            self._owned[spec.name] = found
            return None
        path, staged, link = self.folder / spec.name, self.root / "new" / spec.name, self.root / "layouts" / spec.name
        fresh_link = link.with_name(f"{spec.name}{_FRESH}")
        if not os.path.lexists(path) and os.path.lexists(staged):  # a swap that death cut short
            with contextlib.suppress(FileNotFoundError):
                fresh_link.rename(link)
            staged.rename(path)
        if not os.path.lexists(path):
            self._make(spec, path, link)
            return None
        old = self._adopt(spec, path, link)
        if old is None:
            _remove(staged)
            return None
        if self._adopt(spec, staged, fresh_link) is not None:
            self._make(spec, staged, fresh_link)
        return LayoutChanged(spec.name, spec.writer, old, layout_of_spec(spec), self.root / "old" / spec.name)

    def _mark(self, name: str) -> None:
        """Note whose a map is, if it is to go with its plugin."""
        mark, plugin = self.root / "owners" / name / _MARK, self._owners[name]
        mark.unlink(missing_ok=True)
        if plugin in self.leaving:
            mark.symlink_to(f"{self.leaving[plugin]}:{plugin}")

    def _adopt(self, spec: MapSpec, path: Path, link: Path) -> Layout | None:
        """Own what is pinned; the layout of what is there instead (kind -1: no map, or nothing)."""
        try:
            fd = syscall.get_pinned(path)
        except KernelError as error:
            if error.errno == errno.EPERM:
                raise
            return Layout(-1, 0, 0, 0, 0)
        found = layout_of_fd(fd)
        if found == layout_of_spec(spec) and _fields(link) in (None, layout_hash([spec])):
            self._owned[spec.name] = Map(spec, fd)
            return None
        os.close(fd)
        return found

    def _predecessor(self, spec: MapSpec) -> Map | None:
        """The map that another is about to give way to, or gave, if its layout is the one wanted."""
        name, layouts = spec.predecessor_of, self.root / "layouts"
        changing = any(change.name == name for change in self.changes) or os.path.lexists(self.root / "new" / name)
        path = self.folder / name if changing else self.root / "old" / name
        try:
            fd = syscall.get_pinned(path)
        except KernelError:
            return None
        found = layout_of_fd(fd)
        same = dataclasses.replace(spec, name=name, max_entries=max(1, found.max_entries), flags=MapFlag(found.flags))
        fields = _fields(layouts / (name if changing else f"{name}{_OLD}"))
        if found == layout_of_spec(same) and fields in (None, layout_hash([same])):
            return Map(dataclasses.replace(same, name=spec.name), fd)
        os.close(fd)
        _log.warning("map_not_read_through", map=name, reason=f"it is {found}; {spec.name} is {layout_of_spec(spec)}")
        return None

    def _make(self, spec: MapSpec, path: Path, link: Path) -> None:
        """Make, own and pin a map."""
        fresh = path.with_name(f"{path.name}{_FRESH}")
        _remove(fresh)
        layout = layout_of_spec(spec)
        fd = syscall.map_create(
            layout.kind, layout.key_size, layout.value_size, layout.max_entries, layout.flags, spec.name
        )
        try:
            syscall.pin(fd, fresh)
            _remove(path)
            _remove(link)
            link.symlink_to(layout_hash([spec]))
            fresh.rename(path)
        except BaseException:
            os.close(fd)
            raise
        self._owned[spec.name] = Map(spec, fd)


def _fields(link: Path) -> str | None:
    """The hash that a map was made with; None if nobody wrote it down."""
    return str(link.readlink()) if link.is_symlink() else None


def _remove(path: Path) -> None:
    """Remove a pin, a link or a folder with all that is in it; nothing if it is not there."""
    if path.is_dir() and not path.is_symlink():
        for entry in list(path.iterdir()):
            _remove(entry)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
