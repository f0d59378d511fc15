"""`ciliate hubble observe agent-events` and `debug-events`: what happened on a node beside its flows."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from ciliate_hubble.api import flow_pb2, observer_pb2, observer_pb2_grpc
from ciliate_hubble.cli.connection import connected
from ciliate_hubble.cli.flags import Given, UsageError
from ciliate_hubble.cli.observe import flow_style
from ciliate_hubble.cli.printers import Style, block, json_line
from ciliate_hubble.cli.request import output_format, selection
from ciliate_hubble.cli.settings import server_settings
from ciliate_hubble.cli.tables import aligned
from ciliate_hubble.cli.texts import enum_name


def observe_events(kind: str, given: Sequence[Given]) -> None:
    """Print agent events or debug events. Raises CommandError."""
    output, style, which = output_format(given), flow_style(given), selection(given, time.time_ns())
    if output == "table" and which.follow:
        raise UsageError("-o table can't be combined with --follow: its columns are as wide as all events need")
    agent = kind == "agent-events"
    form: Any = observer_pb2.GetAgentEventsRequest if agent else observer_pb2.GetDebugEventsRequest
    request = form(number=which.number, first=which.first, follow=which.follow, since=which.since, until=which.until)
    rows: list[dict[str, str]] = []
    with connected(server_settings(given)) as server:
        stub = observer_pb2_grpc.ObserverStub(server.channel)
        answers: Iterable[Any] = server.stream(stub.GetAgentEvents if agent else stub.GetDebugEvents, request)
        for answer in answers:
            rows.append(agent_row(answer, style) if agent else debug_row(answer, style))
            if output != "table":
                _print(answer, rows[-1], output, first=len(rows) == 1)
                rows[1:] = []
            if which.follow:
                sys.stdout.flush()
    if output == "table" and rows:
        print(aligned([list(rows[0]), *(list(row.values()) for row in rows)]))


def _print(answer: Any, row: dict[str, str], output: str, first: bool) -> None:
    if output == "json":
        print(json_line(answer))
    elif output == "dict":
        block(row, sys.stdout, first)
    else:
        when, node = row.pop("TIMESTAMP"), row.pop("NODE", None)
        kind, *more = row.values()
        print(f"{when}{'' if node is None else f' [{node}]'}: {kind} ({', '.join(word for word in more if word)})")


def _head(answer: Any, style: Style) -> dict[str, str]:
    head = {"TIMESTAMP": style.when(answer)}
    return head | {"NODE": answer.node_name} if style.nodes else head


def agent_row(answer: observer_pb2.GetAgentEventsResponse, style: Style) -> dict[str, str]:
    """An agent event as columns."""
    event = answer.agent_event
    row = _head(answer, style) | {"TYPE": enum_name(flow_pb2.AgentEventType, event.type)}
    return row | {"DETAILS": ", ".join(_details(event, style))}


def _details(event: flow_pb2.AgentEvent, style: Style) -> list[str]:
    match event.WhichOneof("notification"):
        case "unknown":
            return [f"type: {event.unknown.type}", f"notification: {event.unknown.notification}"]
        case "agent_start":
            return [f"start time: {style.when(event.agent_start)}"]
        case "policy_update":
            policy = event.policy_update
            return [f"labels: {_list(policy.labels)}", f"revision: {policy.revision}", f"count: {policy.rule_count}"]
        case "endpoint_regenerate":
            endpoint = event.endpoint_regenerate
            error = [f"error: {endpoint.error}"] if endpoint.error else []
            return [f"id: {endpoint.id}", f"labels: {_list(endpoint.labels)}", *error]
        case "endpoint_update":
            update = event.endpoint_update
            pod = (("namespace", update.namespace), ("pod name", update.pod_name))
            return [f"id: {update.id}", *(f"{key}: {value}" for key, value in pod if value)]
        case "ipcache_update":
            return _ipcache(event.ipcache_update)
    return []


def _ipcache(entry: flow_pb2.IPCacheNotification) -> list[str]:
    details = [f"cidr: {entry.cidr}", f"identity: {entry.identity}"]
    if entry.HasField("old_identity"):
        details.append(f"old identity: {entry.old_identity.value}")
    for key, value in (("host ip", entry.host_ip), ("old host ip", entry.old_host_ip)):
        if value:
            details.append(f"{key}: {value}")
    return [*details, f"encrypt key: {entry.encrypt_key}"]


def debug_row(answer: observer_pb2.GetDebugEventsResponse, style: Style) -> dict[str, str]:
    """A debug event as columns."""
    event = answer.debug_event
    pod = f"{event.source.namespace}/{event.source.pod_name}" if event.source.pod_name else ""
    return _head(answer, style) | {
        "TYPE": enum_name(flow_pb2.DebugEventType, event.type),
        "FROM": f"{pod} (ID: {event.source.ID})".strip() if event.source.ID else "",
        "MARK": f"{event.hash.value:#x}" if event.HasField("hash") else "",
        "CPU": f"{event.cpu.value:02d}" if event.HasField("cpu") else "",
        "MESSAGE": event.message,
    }


def _list(words: Iterable[str]) -> str:
    return f"[{','.join(words)}]"
