"""Who says what of which address, and the one claim that comes of it. Pure, but for the table that it is written to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ciliate.model.ipcache import IpcacheClaim, claims_table
from ciliate.tables.table import TableWriter

CLAIMS = claims_table("kubernetes")


class Source(NamedTuple):
    """An object that says something of addresses. The lower rank decides; of two of one rank, who spoke last."""

    rank: int
    namespace: str
    name: str


API_SERVER, NODES, ENDPOINTS, RANGES = range(4)
"""Ranks: the API server's address is a node's too; a pod's address lies in a range."""


class Claims:
    """Claims by source, and the table. A claim on what this node itself has (`own`) is not written."""

    def __init__(self, table: TableWriter[IpcacheClaim]) -> None:
        self._table = table
        self._said: dict[Source, tuple[IpcacheClaim, ...]] = {}
        self._sources: dict[str, tuple[Source, ...]] = {}  # by prefix, in the order in which they spoke
        self.own: frozenset[str] = frozenset()  # addresses of this node

    def put(self, source: Source, claims: Iterable[IpcacheClaim]) -> None:
        """All that a source says now."""
        said = tuple(claims)
        touched = self._forget(source)
        if said:
            self._said[source] = said
        for claim in said:
            self._sources[claim.prefix] = (*self._sources.get(claim.prefix, ()), source)
            touched.add(claim.prefix)
        self._settle(touched)

    def remove(self, source: Source) -> None:
        """A source is gone."""
        self._settle(self._forget(source))

    def sources(self, rank: int) -> list[Source]:
        """Those of a rank that say something."""
        return [source for source in self._said if source.rank == rank]

    def set_own(self, addresses: frozenset[str]) -> None:
        """This node has these addresses."""
        if addresses != self.own:
            self.own = addresses
            self._settle(self._sources)

    def complete(self) -> None:
        """Every source has spoken: what an earlier life has left in the table and nobody says any more goes."""
        for prefix in [prefix for prefix in self._table.rows if prefix not in self._sources]:
            self._table.delete(prefix)
        self._table.complete()

    def _forget(self, source: Source) -> set[str]:
        touched = {claim.prefix for claim in self._said.pop(source, ())}
        for prefix in touched:
            left = tuple(one for one in self._sources[prefix] if one != source)
            if left:
                self._sources[prefix] = left
            else:
                del self._sources[prefix]
        return touched

    def _settle(self, prefixes: Iterable[str]) -> None:
        for prefix in prefixes:
            claim = self._decide(prefix)
            if claim is None:
                self._table.delete(prefix)
            else:
                self._table.put(claim)

    def _decide(self, prefix: str) -> IpcacheClaim | None:
        spoke = enumerate(self._sources.get(prefix, ()))
        for _, source in sorted(spoke, key=lambda one: (one[1].rank, -one[0])):
            for claim in self._said[source]:
                if claim.prefix == prefix and claim.node not in self.own:
                    return claim
        return None
