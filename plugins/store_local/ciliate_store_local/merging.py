"""Merging into an object: a patch's changes, and what one of several owners says of it. Pure functions.

What an owner said last is noted in metadata.managedFields, as an API server does; readers of the store do not see that.
A list is one value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ciliate.store import Kind, Object

_Paths = dict[str, Any]
"""`f:<key>` to the paths below it, empty for a value: the form that managedFields have."""
_NAMING = ("name", "namespace", "generateName", "uid", "resourceVersion")
"""Of metadata: what says which object is meant, and is nobody's."""


def merged(value: Any, changes: Any) -> Any:
    """A value with changes merged in (RFC 7386)."""
    if not isinstance(changes, dict):
        return changes
    result = dict(value) if isinstance(value, dict) else {}
    for key, change in changes.items():
        if change is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), change)
    return result


def patched(kind: Kind, old: Object, changes: Object, status: bool) -> Object:
    """The object that a patch asks for; `metadata` is that of `old` for a patch of status."""
    if status:
        return {**old, **merged({"status": old.get("status")}, {"status": changes.get("status")})}
    return dict(merged(old, {key: value for key, value in changes.items() if not _is_apart(kind, key)}))


def applied(kind: Kind, old: Object, wanted: Object, owner: str, status: bool) -> Object:
    """The object with what its owner says now, without what only that owner has said before."""
    said = _part(kind, wanted, status)
    notes = {note["manager"]: note for note in old["metadata"].get("managedFields") or ()}
    name = f"{owner} status" if status else owner
    dropped = notes.get(name, {}).get("fieldsV1") or {}
    notes[name] = {"manager": name, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": _paths(said)}
    for note in notes.values():
        dropped = _without(dropped, note["fieldsV1"])
    result = _removed(_overlaid(old, said), dropped)
    return {**result, "metadata": {**result["metadata"], "managedFields": list(notes.values())}}


def _is_apart(kind: Kind, key: str) -> bool:
    """Whether a part of an object is written by itself: the status of a kind that has one of its own."""
    return key == "status" and kind.has_status


def _part(kind: Kind, wanted: Object, status: bool) -> Object:
    """What of an applied object is its owner's word."""
    if status:
        return {"status": wanted.get("status") or {}}
    metadata = {key: value for key, value in wanted["metadata"].items() if key not in _NAMING}
    named = ("apiVersion", "kind", "metadata")
    rest = {key: value for key, value in wanted.items() if key not in named and not _is_apart(kind, key)}
    return {**rest, "metadata": metadata} if metadata else rest


def _paths(value: Mapping[str, Any]) -> _Paths:
    return {f"f:{key}": _paths(inner) if isinstance(inner, dict) else {} for key, inner in value.items()}


def _without(paths: _Paths, others: _Paths) -> _Paths:
    """The paths that are not among others; a value's path counts with all of those above it."""
    left = {}
    for key, below in paths.items():
        if key not in others:
            left[key] = below
        elif rest := _without(below, others[key]):
            left[key] = rest
    return left


def _overlaid(value: Any, said: Any) -> Any:
    if not isinstance(said, dict):
        return said
    base = value if isinstance(value, dict) else {}
    return {**base, **{key: _overlaid(base.get(key), inner) for key, inner in said.items()}}


def _removed(value: Any, paths: _Paths) -> Any:
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, inner in value.items():
        below = paths.get(f"f:{key}")
        if below is None:
            kept[key] = inner
        elif below and isinstance(inner, dict) and (rest := _removed(inner, below)):
            kept[key] = rest
    return kept
