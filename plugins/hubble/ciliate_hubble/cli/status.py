"""`ciliate hubble status`: whether the server answers, and how much it keeps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from ciliate.cli.dispatch import CommandError
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ciliate_hubble.api import observer_pb2, observer_pb2_grpc
from ciliate_hubble.cli.connection import connected
from ciliate_hubble.cli.flags import Given, UsageError
from ciliate_hubble.cli.printers import json_line
from ciliate_hubble.cli.request import last_value
from ciliate_hubble.cli.settings import server_settings
from ciliate_hubble.cli.tables import aligned
from ciliate_hubble.cli.times import elapsed

SERVICE = "hubble.server.Observer"
"""The name under which a server says that it serves flows."""
_OUTPUTS = {"compact": "compact", "dict": "dict", "json": "json", "jsonpb": "json", "table": "table", "tab": "table"}
Answer = observer_pb2.ServerStatusResponse


def show_status(given: Sequence[Given]) -> None:
    """Print the server's state. Raises CommandError, also where the server says that it doesn't serve."""
    output = last_value(given, "output", "compact")
    if output.lower() not in _OUTPUTS:
        raise UsageError(f"-o {output}: use compact, dict, json or table")
    output = _OUTPUTS[output.lower()]
    with connected(server_settings(given)) as server:
        if output == "compact":
            health = health_pb2_grpc.HealthStub(server.channel)
            check: Callable[..., health_pb2.HealthCheckResponse] = health.Check  # type: ignore[attr-defined]  # set per instance
            found = server.ask(check, health_pb2.HealthCheckRequest(service=SERVICE)).status
            serving = found == health_pb2.HealthCheckResponse.SERVING
            print(f"Healthcheck (via {server.name}): {'Ok' if serving else 'Unavailable'}", flush=True)
            if not serving:
                raise CommandError(f"{server.name} says that it is not serving")
        stub = observer_pb2_grpc.ObserverStub(server.channel)
        answer = server.ask(stub.ServerStatus, observer_pb2.ServerStatusRequest())
    _print(answer, output)


def _print(answer: Answer, output: str) -> None:
    if output == "json":
        print(json_line(answer))
    elif output == "compact":
        _print_compact(answer)
    else:
        columns = _columns(answer, short=output == "dict")
        if output == "table":
            print(aligned([list(columns), list(columns.values())]))
        else:
            sys.stdout.writelines(f"{key:>19}: {value}\n" for key, value in columns.items())


def _print_compact(answer: Answer) -> None:
    share = f" ({answer.num_flows / answer.max_flows:.2%})" if answer.max_flows else ""
    print(f"Current/Max Flows: {answer.num_flows:,}/{answer.max_flows:,}{share}")
    print(f"Flows/s: {_rate(answer)}")
    if not answer.HasField("num_connected_nodes"):
        return
    connected_nodes, unavailable = answer.num_connected_nodes.value, answer.num_unavailable_nodes.value
    known = answer.HasField("num_unavailable_nodes")
    print(f"Connected Nodes: {connected_nodes:,}{f'/{connected_nodes + unavailable:,}' if known else ''}")
    if unavailable:
        print(f"Unavailable Nodes: {unavailable:,}")
        sys.stdout.writelines(f"  - {name}\n" for name in sorted(answer.unavailable_nodes))


def _columns(answer: Answer, short: bool) -> dict[str, str]:
    unavailable = "NUM UNAVAIL. NODES" if short else "NUM UNAVAILABLE NODES"
    return {
        "NUM FLOWS": f"{answer.num_flows:,}",
        "MAX FLOWS": f"{answer.max_flows:,}",
        "SEEN FLOWS": f"{answer.seen_flows:,}",
        "FLOWS PER SECOND": _rate(answer),
        "UPTIME": elapsed(answer.uptime_ns),
        "NUM CONNECTED NODES": _count(answer, "num_connected_nodes"),
        unavailable: _count(answer, "num_unavailable_nodes"),
        "VERSION": answer.version or "N/A",
    }


def _rate(answer: Answer) -> str:
    if answer.flows_rate or not answer.uptime_ns:
        return f"{answer.flows_rate:,.2f}"
    return f"{answer.seen_flows / (answer.uptime_ns / 1e9):,.2f}"


def _count(answer: Answer, field: str) -> str:
    return f"{getattr(answer, field).value:,}" if answer.HasField(field) else "N/A"
