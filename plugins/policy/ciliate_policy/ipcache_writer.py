"""The merged ipcache in the map, in the table, and in the counters that have verdicts judged anew."""

from __future__ import annotations

from collections.abc import Mapping

from ciliate.counters import Counters
from ciliate.model.endpoint import peer_slot
from ciliate.model.ipcache import IpcacheEntry
from ciliate.tables.table import TableWriter

from ciliate_policy.ipcache import HOST_BITS, Address, Ipcache, encode, encode_keys, text_of
from ciliate_policy.realise import EntryMap

MOST = 300
"""Entries that are written at a time: 5 ms."""


class IpcacheWriter:
    """Writes what `merge` says has changed. What an earlier life left in the map is deleted by `prune` alone."""

    def __init__(
        self,
        ipcache: Ipcache,
        entries: EntryMap,
        stamps: Counters,
        table: TableWriter[IpcacheEntry],
        left: dict[Address, bytes],
    ) -> None:
        """left: what `content` has found in the map. All is to be written anew, if it differs."""
        self._ipcache = ipcache
        self._entries = entries
        self._stamps = stamps
        self._table = table
        self._left: dict[Address, bytes] | None = left
        ipcache.forget()

    def write(self, most: int = MOST) -> bool:
        """Bring map and table up to date: all that is urgent, and as many others; whether there is more."""
        self._write(self._ipcache.merge(most))
        return self._ipcache.pending

    def prune(self) -> int:
        """Once every claimant has said all: delete what nobody claims any more; how many entries."""
        left, self._left = self._left, None
        gone = [address for address in left or () if address not in self._ipcache.entries]
        if gone:
            self._entries.delete_batch(encode_keys(gone))
            self._bump(gone)
        claimed = {entry.prefix for entry in self._ipcache.entries.values()}
        for prefix in [prefix for prefix in self._table.rows if prefix not in claimed]:
            self._table.delete(prefix)
        return len(gone)

    @property
    def pruned(self) -> bool:
        """Whether `prune` has been."""
        return self._left is None

    def _write(self, changed: Mapping[Address, IpcacheEntry | None]) -> None:
        present = {address: entry for address, entry in changed.items() if entry is not None}
        keys, values = encode(present)
        if self._left is not None and present:
            new = [self._left.get(a) != value.tobytes() for a, value in zip(present, values, strict=True)]
            keys, values = keys[new], values[new]
            touched = [address for address, is_new in zip(present, new, strict=True) if is_new]
        else:
            touched = list(present)
        if len(keys):
            self._entries.update_batch(keys, values)
        gone = [address for address, entry in changed.items() if entry is None]
        if gone:
            self._entries.delete_batch(encode_keys(gone))
        self._bump([*touched, *gone])
        for entry in present.values():
            self._table.put(entry)
        for address in gone:
            self._table.delete(text_of(address))

    def _bump(self, addresses: list[Address]) -> None:
        """Flows with these peers are judged anew; a prefix shorter than a host is everybody."""
        if any(address.bits < HOST_BITS for address in addresses):
            self._stamps.bump_all()
            return
        self._stamps.bump_many([peer_slot(address.packed) for address in addresses])


def content(entries: EntryMap) -> dict[Address, bytes]:
    """What the map holds. Takes milliseconds for each thousand entries."""
    keys, values = entries.items()
    return {
        Address(int(key["prefixlen"]), key["address"].tobytes()): value.tobytes()
        for key, value in zip(keys, values, strict=True)
    }
