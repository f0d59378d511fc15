"""Why a filter is refused, and how large one may be."""

from __future__ import annotations

FILTERS_MOST = 256
"""In each of the two lists."""
VALUES_MOST = 4096
"""In all fields of a request together."""
EXPRESSIONS_MOST = 64
"""Regular expressions of a request: each may take a megabyte."""
FIELDS_MOST = 512
"""Populated fields of all filters of a request."""
TESTS_MOST = 1024
"""Values of a request that are looked at one by one: names, labels, requests; each end and record is tested once."""
LENGTH_MOST = 1024
"""Characters of one value."""


class FilterError(ValueError):
    """A value that means nothing. `path` is its place, as whitelist[0].source_ip[1]."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(f"{path}: {text}")
        self.path = path
