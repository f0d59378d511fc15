"""How answers are printed: one class a format. What a relay says of its nodes goes to standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from ciliate_hubble.api import flow_pb2, observer_pb2, relay_pb2
from ciliate_hubble.cli.colours import Colours
from ciliate_hubble.cli.names import ends
from ciliate_hubble.cli.tables import aligned
from ciliate_hubble.cli.texts import enum_name, policy_names, summary_text, type_text, verdict_text
from ciliate_hubble.cli.why import why

Response = observer_pb2.GetFlowsResponse


class Printer(Protocol):
    """Prints answers as they come."""

    def flow(self, answer: Response) -> None:
        """A flow."""

    def lost(self, answer: Response) -> None:
        """Flows that were lost."""

    def nodes(self, answer: Response) -> None:
        """What a relay says of nodes that can't be asked."""

    def end(self) -> None:
        """No more will come."""


@dataclass(frozen=True)
class Style:
    """What the flags say about how to print."""

    colours: Colours
    time: Callable[[int, int], str]
    nodes: bool = False
    policies: bool = False
    rules: bool = False
    translate: bool = True
    silent: bool = False

    def when(self, message: Any, field: str = "time") -> str:
        """A message's time."""
        stamp: Timestamp = getattr(message, field)
        return self.time(stamp.seconds, stamp.nanos) if message.HasField(field) else "N/A"

    def verdict(self, flow: flow_pb2.Flow) -> str:
        """A verdict, in its colour."""
        return self.colours.verdict(verdict_text(flow), policy_names(flow) if self.policies else "")


def show(printer: Printer, answer: Response, silent: bool) -> None:
    """Print one answer."""
    match answer.WhichOneof("response_types"):
        case "flow":
            printer.flow(answer)
        case "lost_events":
            printer.lost(answer)
        case "node_status" if not silent:
            if answer.node_status.state_change in (relay_pb2.NODE_UNAVAILABLE, relay_pb2.NODE_ERROR):
                printer.nodes(answer)


def span(style: Style, lost: flow_pb2.LostEvent) -> str:
    """When events were lost, if that is known."""
    if not lost.HasField("first") or not lost.HasField("last"):
        return ""
    return f" (first: {style.when(lost, 'first')}, last: {style.when(lost, 'last')})"


class Compact:
    """A line a flow."""

    def __init__(self, style: Style) -> None:
        self._style = style

    def flow(self, answer: Response) -> None:
        """A flow; of an answer the ends stand as in the request, with the arrow turned."""
        style, flow, paint = self._style, answer.flow, self._style.colours
        left, right = ends(flow, style.translate)
        arrow = "<>"
        if flow.HasField("is_reply"):
            arrow = "<-" if flow.is_reply.value else "->"
            left, right = (right, left) if flow.is_reply.value else (left, right)
        node = f" [{flow.node_name}]" if style.nodes else ""
        print(
            f"{style.when(flow)}{node}:"
            f" {paint.end(left)} {paint.identity(f'({left.identity})')} {arrow}"
            f" {paint.end(right)} {paint.identity(f'({right.identity})')}"
            f" {type_text(flow)} {style.verdict(flow)} ({summary_text(flow)})"
        )
        if style.rules and (reason := why(flow, paint)):
            print(f"    {reason}")

    def lost(self, answer: Response) -> None:
        """A line about losses."""
        lost, when = answer.lost_events, self._style.when(answer)
        what = f"{enum_name(flow_pb2.LostEventSource, lost.source)} CPU({lost.cpu.value}) {lost.num_events_lost}"
        print(f"{when} EVENTS LOST: {what}{span(self._style, lost)}")

    def nodes(self, answer: Response) -> None:
        """A line about nodes."""
        status = answer.node_status
        names = f"{len(status.node_names)} nodes"
        if status.state_change == relay_pb2.NODE_UNAVAILABLE:
            what = f"{names} are unavailable: "
        else:
            what = f"Error {json.dumps(status.message)} on {names}: "
        print(f"{self._style.when(answer)} [{answer.node_name}]: {what}{', '.join(status.node_names)}", file=sys.stderr)

    def end(self) -> None:
        """Nothing is kept back."""


class Dictionary:
    """A block of `KEY: value` lines a flow."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._begun: set[TextIO] = set()

    def flow(self, answer: Response) -> None:
        """A block about a flow."""
        style, flow = self._style, answer.flow
        source, destination = ends(flow, style.translate)
        lines = {"TIMESTAMP": style.when(flow)}
        if style.nodes:
            lines["NODE"] = flow.node_name
        lines |= {"SOURCE": style.colours.end(source), "DESTINATION": style.colours.end(destination)}
        lines |= {"TYPE": type_text(flow), "VERDICT": style.verdict(flow), "SUMMARY": summary_text(flow)}
        if style.rules and (reason := why(flow, style.colours)):
            lines["WHY"] = reason
        self._block(lines, sys.stdout)

    def lost(self, answer: Response) -> None:
        """A block about losses."""
        lost, style = answer.lost_events, self._style
        lines = {"TIMESTAMP": style.when(answer)}
        if style.nodes:
            lines["NODE"] = answer.node_name or "-"
        lines |= {"SOURCE": enum_name(flow_pb2.LostEventSource, lost.source), "TYPE": "EVENTS LOST", "VERDICT": "-"}
        self._block(lines | {"SUMMARY": _losses(style, lost)}, sys.stdout)

    def nodes(self, answer: Response) -> None:
        """A block about nodes."""
        status = answer.node_status
        lines = {"TIMESTAMP": self._style.when(answer)}
        if self._style.nodes:
            lines["NODE"] = answer.node_name
        lines |= {
            "STATE": relay_pb2.NodeState.Name(status.state_change),
            "NODES": ", ".join(status.node_names),
            "MESSAGE": json.dumps(status.message) if status.message else "N/A",
        }
        self._block(lines, sys.stderr)

    def end(self) -> None:
        """Nothing is kept back."""

    def _block(self, lines: dict[str, str], out: TextIO) -> None:
        block(lines, out, first=out not in self._begun)
        self._begun.add(out)


class Table:
    """Aligned columns, printed when all flows are there."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._rows = [["TIMESTAMP", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY"]]
        self._nodes = ["NODE"]
        self._wide = style.rules
        if self._wide:
            self._rows[0].append("WHY")

    def flow(self, answer: Response) -> None:
        """A row about a flow."""
        flow = answer.flow
        source, destination = ends(flow, self._style.translate)
        row = [self._style.when(flow), source.whole, destination.whole, type_text(flow)]
        row += [self._style.verdict(flow), summary_text(flow)]
        self._add(flow.node_name, row, why(flow, self._style.colours) if self._wide else "")

    def lost(self, answer: Response) -> None:
        """A row about losses."""
        lost = answer.lost_events
        source = enum_name(flow_pb2.LostEventSource, lost.source)
        row = [self._style.when(answer), source, "-", "EVENTS LOST", "-", _losses(self._style, lost)]
        self._add(answer.node_name or "-", row, "")

    def nodes(self, answer: Response) -> None:
        """A line about nodes."""
        Compact(self._style).nodes(answer)

    def end(self) -> None:
        """Print all rows."""
        rows = self._rows
        if self._style.nodes:
            rows = [[row[0], node, *row[1:]] for row, node in zip(rows, self._nodes, strict=True)]
        print(aligned(rows))

    def _add(self, node: str, row: list[str], reason: str) -> None:
        self._rows.append([*row, reason] if self._wide else row)
        self._nodes.append(node)


class Json:
    """A JSON object an answer and line."""

    def __init__(self, _: Style) -> None:
        self._bare = os.environ.get("HUBBLE_COMPAT") == "legacy-json-output"

    def flow(self, answer: Response) -> None:
        """A flow, with its node and time."""
        print(json_line(answer.flow if self._bare else answer))

    def lost(self, answer: Response) -> None:
        """Losses."""
        print(json_line(answer.lost_events if self._bare else answer))

    def nodes(self, answer: Response) -> None:
        """What a relay says of nodes."""
        print(json_line(answer.node_status if self._bare else answer), file=sys.stderr)

    def end(self) -> None:
        """Nothing is kept back."""


PRINTERS: dict[str, Callable[[Style], Printer]] = {
    "compact": Compact,
    "dict": Dictionary,
    "table": Table,
    "json": Json,
}


def block(lines: dict[str, str], out: TextIO, first: bool) -> None:
    """Print `KEY: value` lines, with a line between two blocks."""
    if not first:
        print("------------", file=out)
    for key, value in lines.items():
        print(f"{key:>11}: {value}", file=out)


def json_line(message: Any) -> str:
    """A message as JSON with the field names of the .proto files, in one line."""
    values = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)


def _losses(style: Style, lost: flow_pb2.LostEvent) -> str:
    return f"CPU({lost.cpu.value}) - {lost.num_events_lost}{span(style, lost)}"
