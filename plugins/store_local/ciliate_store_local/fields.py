"""Field selectors: equality of values at dotted paths of an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ciliate.store import Object


def matches(obj: Object, fields: Mapping[str, str] | None) -> bool:
    """Whether every path has its value. An absent path has the value ""; the rest is written as in JSON."""
    return not fields or all(_text(_value(obj, path)) == wanted for path, wanted in fields.items())


def _value(obj: Object, path: str) -> Any:
    value: Any = obj
    for part in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
