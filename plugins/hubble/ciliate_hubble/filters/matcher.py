"""The two lists of a request as one mask: what the whitelist wants and the blacklist doesn't."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ciliate_hubble.api.flow_pb2 import FlowFilter
from ciliate_hubble.columns import EventType, Flows
from ciliate_hubble.filters.errors import (
    EXPRESSIONS_MOST,
    FIELDS_MOST,
    FILTERS_MOST,
    LENGTH_MOST,
    TESTS_MOST,
    VALUES_MOST,
    FilterError,
)
from ciliate_hubble.filters.field import Field, populated
from ciliate_hubble.filters.fields import HTTP_FIELDS, MEANINGS, cost
from ciliate_hubble.filters.predicates import Mask, Predicate, everything, nothing
from ciliate_hubble.tables import FlowTables

_EXPRESSIONS = ("dns_query", "http_path", "http_url")
_MOST = {
    "value": VALUES_MOST, "field": FIELDS_MOST, "test": TESTS_MOST, "regular expression": EXPRESSIONS_MOST,
}  # fmt: skip
ROWS, TESTS, COMPARISONS = 4096, 32_768, 1_000_000
"""At most so many rows at once; and so few that what is new in them takes only so many tests and comparisons."""


class Matcher:
    """Which rows a request wants. Raises FilterError when it is made."""

    def __init__(self, whitelist: Sequence[FlowFilter], blacklist: Sequence[FlowFilter], tables: FlowTables) -> None:
        self.rows = self._limit(whitelist, blacklist)  # that are filtered in some milliseconds
        self._filters = whitelist, blacklist
        self._wanted = [_conjunction(f, f"whitelist[{index}]", tables) for index, f in enumerate(whitelist)]
        self._unwanted = [_conjunction(f, f"blacklist[{index}]", tables) for index, f in enumerate(blacklist)]

    def mask(self, flows: Flows) -> Mask:
        """Which of these. Never waits: give it some thousands of rows at a time."""
        found = everything(flows) if not self._wanted else nothing(flows)
        for wanted in self._wanted:
            found |= wanted(flows)
        for unwanted in self._unwanted:
            if not found.any():
                break
            found &= ~unwanted(flows)
        return found

    def over(self, tables: FlowTables) -> Matcher:
        """The same over rows that name other tables."""
        return Matcher(*self._filters, tables)

    def _limit(self, whitelist: Sequence[FlowFilter], blacklist: Sequence[FlowFilter]) -> int:
        """Refuse what is larger than anybody needs, before it costs anything. How many rows to filter at once."""
        counts = Counter({"value": 0, "field": 0, "test": 0, "regular expression": 0})
        for name, filters in (("whitelist", whitelist), ("blacklist", blacklist)):
            if len(filters) > FILTERS_MOST:
                raise FilterError(name, f"{len(filters)} filters are more than {FILTERS_MOST}; merge some")
            for index, one in enumerate(filters):
                for field, found in populated(one):
                    path = f"{name}[{index}].{field}"
                    counts["field"] += 1
                    counts["value"] += len(found)
                    counts["test"] += len(found) if cost(field) in (1, 3) else 0
                    counts["regular expression"] += len(found) if field in _EXPRESSIONS else 0
                    for what, most in _MOST.items():
                        if counts[what] > most:
                            raise FilterError(path, f"the request has more than {most} {what}s up to here; merge some")
                    _limit_lengths(found, path)
        return max(16, min(ROWS, TESTS // max(1, counts["test"]), COMPARISONS // max(1, counts["field"])))


def _limit_lengths(values: Sequence[Any], path: str) -> None:
    for index, value in enumerate(values):
        length = len(value) if isinstance(value, str) else value.ByteSize() if hasattr(value, "ByteSize") else 0
        if length > LENGTH_MOST:
            raise FilterError(f"{path}[{index}]", f"{length} characters are more than {LENGTH_MOST}")


def _conjunction(one: FlowFilter, path: str, tables: FlowTables) -> Predicate:
    """Rows for which every populated field holds."""
    fields = dict(populated(one))
    types = [event.type for event in fields.get("event_type", ())]
    for name in sorted(HTTP_FIELDS & fields.keys()):
        if types and EventType.L7 not in types:
            raise FilterError(
                f"{path}.{name}",
                f"needs L7 flows, but event_type has only {types}; add 129 (l7), or leave event_type out",
            )
    ordered = sorted(fields, key=cost)
    predicates = [MEANINGS[name](Field(fields[name], f"{path}.{name}", tables)) for name in ordered]

    def mask(flows: Flows) -> Mask:
        found = everything(flows)
        for predicate in predicates:
            found &= predicate(flows)
            if not found.any():
                break
        return found

    return mask
