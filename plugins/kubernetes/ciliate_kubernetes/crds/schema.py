"""Structural schemas from a few words. Each function gives a JSON schema as an API server takes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

Schema = dict[str, Any]
LABEL_VALUE = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"


def string(pattern: str = "", most: int = 0, one_of: Sequence[str] = (), **more: Any) -> Schema:
    """A text."""
    schema: Schema = {"type": "string", **more}
    if pattern:
        schema["pattern"] = pattern
    if most:
        schema["maxLength"] = most
    if one_of:
        schema["enum"] = list(one_of)
    return schema


def integer(least: int | None = None, most: int | None = None, **more: Any) -> Schema:
    """A whole number."""
    schema: Schema = {"type": "integer", **more}
    if least is not None:
        schema["minimum"] = least
    if most is not None:
        schema["maximum"] = most
    return schema


def boolean(**more: Any) -> Schema:
    """True or false."""
    return {"type": "boolean", **more}


def time() -> Schema:
    """A moment, as Kubernetes writes it."""
    return string(format="date-time")


def array(items: Schema, least: int = 0, most: int = 0, **more: Any) -> Schema:
    """A list."""
    schema: Schema = {"type": "array", "items": items, **more}
    if least:
        schema["minItems"] = least
    if most:
        schema["maxItems"] = most
    return schema


def fields(properties: Mapping[str, Schema], required: Sequence[str] = (), **more: Any) -> Schema:
    """An object with these fields."""
    schema: Schema = {"type": "object", "properties": dict(properties), **more}
    if required:
        schema["required"] = list(required)
    return schema


def mapping(values: Schema, **more: Any) -> Schema:
    """An object with any keys."""
    return {"type": "object", "additionalProperties": values, **more}


def anything() -> Schema:
    """An object of which nothing is known for certain: nothing of it is removed."""
    return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def int_or_string(**more: Any) -> Schema:
    """A number or a text; `pattern` is for texts, `minimum` and `maximum` for numbers."""
    return {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}], **more}


def rule(expression: str, message: str) -> Schema:
    """A rule in CEL. Only where an object has few such places: its cost is reckoned for the largest object there is."""
    return {"rule": expression, "message": message}


def fixed(message: str) -> Schema:
    """The rule that a value never changes."""
    return rule("self == oldSelf", message)


def exactly_one(names: Iterable[str]) -> Schema:
    """A keyword: exactly one of these fields is there."""
    return {"oneOf": [{"required": [name]} for name in names]}


def one_filled_at_most(names: Iterable[str]) -> Schema:
    """A keyword: of these lists at most one has an element."""
    pairs = [
        {"required": [one, other], "properties": {one: {"minItems": 1}, other: {"minItems": 1}}}
        for one, other in combinations(names, 2)
    ]
    return {"not": {"anyOf": pairs}}


def label_selector(**more: Any) -> Schema:
    """A LabelSelector. Keys may begin with a source, as `k8s:app` or `reserved:host`."""
    values = string(LABEL_VALUE, most=63)
    expression = fields(
        {
            "key": string(),
            "operator": string(one_of=("In", "NotIn", "Exists", "DoesNotExist")),
            "values": array(values, **ATOMIC),
        },
        required=("key", "operator"),
    )
    return fields(
        {"matchExpressions": array(expression, **ATOMIC), "matchLabels": mapping(values)},
        **{"x-kubernetes-map-type": "atomic", **more},
    )


ATOMIC: Schema = {"x-kubernetes-list-type": "atomic"}
SET: Schema = {"x-kubernetes-list-type": "set"}


def conditions(**more: Any) -> Schema:
    """A status's conditions, one of each type."""
    one = fields(
        {
            "type": string(),
            "status": string(),
            "observedGeneration": integer(least=0, format="int64"),
            "lastTransitionTime": time(),
            "reason": string(),
            "message": string(),
        },
        required=("status", "type"),
    )
    return array(one, **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"], **more})
