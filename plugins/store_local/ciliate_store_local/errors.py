"""SQLite's errors in the words of the store interface: what, where, how to mend it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from pathlib import Path

from ciliate.store import StoreError, UnavailableError

_ROOM = 1 << 20
"""Fewer free bytes than this make an I/O error a matter of a full disk."""
_SIDE_FILES = ("", "-wal")


class CorruptError(UnavailableError):
    """The database file is damaged. A copy of it has been kept; nothing is changed until somebody mends it."""


def translate(error: sqlite3.Error, path: Path, waited: float) -> StoreError:
    """The store's error for one of SQLite's; a mistake of our own (bad SQL) is raised as it is.

    waited: seconds for which a lock was waited for.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return corrupt(path, str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return UnavailableError(
            f"store {path} is being written by {_lock_holders(path)} for over {waited:g} s; try again"
        )
    if code == sqlite3.SQLITE_FULL or (code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and _free(path) < _ROOM):
        return UnavailableError(
            f"no room for store {path}: {_free(path)} bytes are free in {path.parent}; nothing was lost or changed."
            " Make room there and try again"
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
        return UnavailableError(
            f"store {path} can't be used: {error}. Is {path.parent} there, mounted for writing, and yours?"
        )
    raise error


def corrupt(path: Path, finding: str) -> CorruptError:
    """The error for a damaged file; a copy is kept beside it first (once, however often this is called)."""
    kept, finding = _keep_aside(path), " ".join(finding.split())
    return CorruptError(
        f"store {path} is damaged ({finding}) and was left as it is; {kept}. To mend it, stop what uses it and run"
        f" `python -m ciliate_store_local.mend {path}`, which saves every object that can still be read;"
        " or put a backup in its place; or move it away to begin with no objects at all"
    )


def _keep_aside(path: Path) -> str:
    """Copy the damaged files, named by their time of change so that restarts make one copy; say what was kept."""
    try:
        stamp = path.stat().st_mtime_ns
        kept = path.with_name(f"{path.name}.corrupt-{stamp}")
        if kept.exists():
            return f"a copy is in {kept}"
        names = [name for name in _SIDE_FILES if path.with_name(path.name + name).exists()]
        size = sum(path.with_name(path.name + name).stat().st_size for name in names)
        if size + _ROOM > _free(path):
            return f"no copy was kept, since only {_free(path)} bytes are free in {path.parent}"
        for name in names:  # by another process: to close the file in this one would give up SQLite's locks on it
            files = [str(path.with_name(path.name + name)), str(kept.with_name(kept.name + name))]
            subprocess.run(["cp", "--preserve", "--", *files], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no copy could be kept ({error})"
    return f"a copy is in {kept}"


def _free(path: Path) -> int:
    """Free bytes in a file's folder; all the room there is if that can't be told."""
    try:
        stats = os.statvfs(path.parent)
    except OSError:
        return 1 << 62
    return stats.f_bavail * stats.f_frsize


def _lock_holders(path: Path) -> str:
    """The processes that hold SQLite's locks on a file's index, as `process 12, 14`; `another process` if unknown."""
    try:
        inode = path.with_name(path.name + "-shm").stat().st_ino
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return "another process"
    holders = {f[4] for f in lines if len(f) > 7 and f[3] == "WRITE" and f[5].endswith(f":{inode}") and f[6] == "120"}
    return f"process {', '.join(sorted(holders))}" if holders else "another process"
