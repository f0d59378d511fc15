"""Field masks of GetFlows: paths of flow.Flow that are wanted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from ciliate_hubble.api.flow_pb2 import Endpoint, Flow
from ciliate_hubble.api.observer_pb2 import GetFlowsResponse

PATHS_MOST = 1000
_ENDS = ("source", "destination")


class MaskError(ValueError):
    """A path that doesn't exist; the message says which, and what there is."""


@dataclass(frozen=True)
class Mask:
    """What is wanted.

    `fields`: names of Flow's fields. `ends`: of these, `source` and `destination` with the names of their fields.
    `rest`: paths below other fields, which are cut out of whole flows; None: there are none.
    """

    fields: frozenset[str]
    source: frozenset[str]
    destination: frozenset[str]
    rest: tuple[str, ...] | None = None


def _names(descriptor: Any) -> frozenset[str]:
    return frozenset(field.name for field in descriptor.fields)


EVERYTHING = Mask(_names(Flow.DESCRIPTOR), _names(Endpoint.DESCRIPTOR), _names(Endpoint.DESCRIPTOR))


def compile_mask(paths: Iterable[str]) -> Mask:
    """The mask of some paths; none: everything. Raises MaskError."""
    wanted = list(dict.fromkeys(paths))
    if not wanted:
        return EVERYTHING
    if len(wanted) > PATHS_MOST:
        raise MaskError(f"field_mask: {len(wanted)} paths are more than {PATHS_MOST}")
    for number, path in enumerate(wanted):
        _check(path, f"field_mask.paths[{number}]")
    first = {path.partition(".")[0] for path in wanted}
    ends = {side: EVERYTHING.source if side in wanted else _below(wanted, side) for side in _ENDS if side in first}
    deep = any(path.count(".") > (1 if path.partition(".")[0] in _ENDS else 0) for path in wanted)
    return Mask(
        frozenset(first),
        ends.get("source", frozenset()),
        ends.get("destination", frozenset()),
        tuple(wanted) if deep else None,
    )


def cut(flow: bytes, paths: tuple[str, ...]) -> bytes:
    """A GetFlowsResponse of what of an encoded flow is at some paths."""
    answer = GetFlowsResponse()
    FieldMask(paths=paths).MergeMessage(Flow.FromString(flow), answer.flow)
    answer.node_name = answer.flow.node_name
    if answer.flow.HasField("time"):
        answer.time.CopyFrom(answer.flow.time)
    return answer.SerializeToString(deterministic=True)


def _below(paths: Iterable[str], side: str) -> frozenset[str]:
    return frozenset(path.split(".")[1] for path in paths if path.startswith(f"{side}."))


def _check(path: str, where: str) -> None:
    """Raises MaskError unless every step is a field of the message before it."""
    descriptor: Any = Flow.DESCRIPTOR
    done: list[str] = []
    for step in path.split("."):
        before = ".".join(done) or "flow.Flow"
        if descriptor is None:
            raise MaskError(f"{where}: {path!r}: {before} has no fields of its own")
        field = descriptor.fields_by_name.get(step)
        if field is None:
            known = ", ".join(sorted(_names(descriptor)))
            raise MaskError(f"{where}: {path!r}: {before} has no field {step!r}; there are {known}")
        done.append(step)
        descriptor = None if field.is_repeated else field.message_type
