"""What a table is, before there is one."""

from __future__ import annotations

import enum
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ciliate.model.base import Row

R = TypeVar("R", bound=Row)


class Durability(enum.Enum):
    """What of a table survives its writer's death."""

    COMMIT = "commit"  # everything, from the moment that the commit returns
    SECOND = "second"  # everything older than a second


@dataclass(frozen=True)
class TableSpec(Generic[R]):
    """A table's name, the type of its rows and the fields that make a row's key (one field: the bare value)."""

    name: str
    row: type[R]
    key: tuple[str, ...]
    durability: Durability
    doc: str
    version: int = 1

    def key_of(self, row: R) -> Any:
        """A row's key: the value of the one key field, or a tuple of several."""
        if len(self.key) == 1:
            return getattr(row, self.key[0])
        return tuple(getattr(row, name) for name in self.key)


Key = Hashable
