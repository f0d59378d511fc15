"""Flows from a file that `observe -o json` has written, in place of a server's."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from ciliate.cli.dispatch import CommandError
from google.protobuf import json_format

from ciliate_hubble.api import flow_pb2, observer_pb2

Answer = observer_pb2.GetFlowsResponse
_KINDS = {"flow", "lost_events", "node_status"}
_OF_ANSWER = frozenset(Answer.DESCRIPTOR.fields_by_name)
"""Names by which a line is an answer, and not a bare flow, as HUBBLE_COMPAT=legacy-json-output writes it."""


def read_answers(path: str, request: observer_pb2.GetFlowsRequest) -> Iterator[Answer]:
    """The answers of a file (`-`: standard input) that a request without filters is for. Raises CommandError."""
    with ExitStack() as stack:
        try:
            lines = sys.stdin if path == "-" else stack.enter_context(Path(path).open(encoding="utf-8"))
        except OSError as error:
            raise CommandError(f"--input-file: {path}: {error.strerror}") from error
        found = (answer for answer in _parsed(lines) if _in_time(answer, request))
        number = min(request.number, sys.maxsize)
        if request.first:
            yield from islice(found, number)
        else:
            yield from deque(found, number or None)


def _parsed(lines: Iterator[str] | Any) -> Iterator[Answer]:
    """Fields that we don't know are passed over; a line that is no answer is told of, and passed over too."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if set(value) & _KINDS or set(value) <= _OF_ANSWER:
                yield json_format.ParseDict(value, Answer(), ignore_unknown_fields=True)
            else:
                yield Answer(flow=json_format.ParseDict(value, flow_pb2.Flow(), ignore_unknown_fields=True))
        except (ValueError, TypeError, AttributeError, json_format.ParseError) as error:
            print(f"line {number} is no flow: {error}", file=sys.stderr)


def _in_time(answer: Answer, request: observer_pb2.GetFlowsRequest) -> bool:
    """Whether it is between `since` and `until`; what has no time always is."""
    stamp = answer.flow.time if answer.HasField("flow") else answer.time
    if not stamp.ByteSize():
        return True
    at = stamp.ToNanoseconds()
    after = not request.HasField("since") or at >= request.since.ToNanoseconds()
    return after and (not request.HasField("until") or at <= request.until.ToNanoseconds())
