"""Patterns in filters: regular expressions by RE2, which no pattern can make slow; and those of names."""

from __future__ import annotations

import re
from collections.abc import Callable

import re2

Matches = Callable[[str], bool]

_MEMORY = 1 << 20
_NAME = re.compile(r"[-a-zA-Z0-9_.*]+")
_STAR = "[-.0-9a-z]*"


class PatternError(ValueError):
    """A pattern that is none; the message says why."""


def expression(text: str) -> Matches:
    """Whether a text holds what a regular expression of RE2 matches. Raises PatternError."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        compiled = re2.compile(text, options)
    except re2.error as error:
        (reason,) = error.args or (b"",)
        said = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise PatternError(f"{text!r} is no regular expression of RE2: {said}") from error
    return lambda value: compiled.search(value) is not None


def name_pattern(text: str) -> Matches:
    """Whether a name is as a pattern says: * is any part of a name; case and one final dot don't matter.

    Raises PatternError.
    """
    trimmed = text.removesuffix(".").lower()
    if not _NAME.fullmatch(trimmed):
        raise PatternError(f"{text!r} is no pattern of a name: it may have letters, digits, - _ . and *")
    whole = "^" + _STAR.join(map(re.escape, trimmed.split("*"))) + "$"
    matches = expression(whole)
    return lambda value: matches(value.removesuffix(".").lower())


def node_pattern(text: str) -> Matches:
    """Whether a node's name, <cluster>/<node>, is as [cluster/][node] says; a part that is left out is any.

    Raises PatternError.
    """
    cluster, _, node = text.rpartition("/")
    if not cluster and not node:
        raise PatternError(f"{text!r} names no cluster and no node: write [cluster/][node]")
    if "/" in cluster:
        raise PatternError(f"{text!r} has more than one slash: write [cluster/][node]")
    of_cluster = name_pattern(cluster) if cluster else None
    of_node = name_pattern(node) if node else None

    def matches(value: str) -> bool:
        if not value:
            return False
        its_cluster, separator, its_node = value.rpartition("/")
        its_cluster = its_cluster if separator else "default"
        return (of_cluster is None or of_cluster(its_cluster)) and (of_node is None or of_node(its_node))

    return matches
