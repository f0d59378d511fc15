"""A populated field of a FlowFilter: its values, and where they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ciliate_hubble.filters.errors import FilterError
from ciliate_hubble.filters.predicates import Predicate
from ciliate_hubble.tables import FlowTables


class Field(NamedTuple):
    """One populated field of a filter."""

    values: Sequence[Any]
    path: str  # whitelist[0].source_ip
    tables: FlowTables

    def each(self, make: Callable[[Any], Any], *errors: type[ValueError]) -> list[Any]:
        """What is made of each value; its errors become FilterErrors with the value's place."""
        made = []
        for index, value in enumerate(self.values):
            try:
                made.append(make(value))
            except errors as error:
                raise FilterError(f"{self.path}[{index}]", str(error)) from error
        return made


Meaning = Callable[[Field], Predicate]


def populated(message: Any) -> Iterable[tuple[str, Sequence[Any]]]:
    """The fields of a FlowFilter that say something, with their values."""
    for descriptor, value in message.ListFields():
        yield descriptor.name, list(value) if descriptor.is_repeated else [value]
