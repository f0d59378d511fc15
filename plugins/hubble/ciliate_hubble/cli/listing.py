"""`ciliate hubble list`: nodes behind a relay, and namespaces with recent flows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf import json_format

from ciliate_hubble.api import observer_pb2, observer_pb2_grpc, relay_pb2
from ciliate_hubble.cli.connection import connected
from ciliate_hubble.cli.flags import Given, UsageError
from ciliate_hubble.cli.request import last_value
from ciliate_hubble.cli.settings import server_settings
from ciliate_hubble.cli.tables import aligned
from ciliate_hubble.cli.times import elapsed

_STATES = {relay_pb2.NODE_CONNECTED: "Connected", relay_pb2.NODE_UNAVAILABLE: "Unavailable"} | {
    relay_pb2.NODE_GONE: "Gone",
    relay_pb2.NODE_ERROR: "Error",
}


def list_nodes(given: Sequence[Given]) -> None:
    """Print nodes. Raises CommandError."""
    output = _output(given)
    with connected(server_settings(given)) as server:
        stub = observer_pb2_grpc.ObserverStub(server.channel)
        nodes = server.ask(stub.GetNodes, observer_pb2.GetNodesRequest()).nodes
    if output == "json":
        _print_json(nodes)
        return
    rows = [["NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS"]]
    rows += [[node.name, _STATES.get(node.state, "Unknown"), *_numbers(node)] for node in nodes]
    if output == "wide":
        rows[0] += ["VERSION", "ADDRESS", "TLS"]
        for row, node in zip(rows[1:], nodes, strict=True):
            row += [node.version or "N/A", node.address, _tls(node)]
    print(aligned(rows))


def list_namespaces(given: Sequence[Given]) -> None:
    """Print namespaces. Raises CommandError."""
    output = _output(given)
    with connected(server_settings(given)) as server:
        stub = observer_pb2_grpc.ObserverStub(server.channel)
        namespaces = server.ask(stub.GetNamespaces, observer_pb2.GetNamespacesRequest()).namespaces
    if output == "json":
        _print_json(namespaces)
    elif output == "wide":
        print(aligned([["NAMESPACE", "CLUSTER"], *([each.namespace, each.cluster] for each in namespaces)]))
    else:
        print(aligned([["NAMESPACE"], *([each.namespace] for each in namespaces)]))


def _output(given: Sequence[Given]) -> str:
    output = last_value(given, "output", "table")
    if output not in ("table", "wide", "json"):
        raise UsageError(f"-o {output}: use table, wide or json")
    return output


def _numbers(node: observer_pb2.Node) -> list[str]:
    if node.state != relay_pb2.NODE_CONNECTED:
        return ["N/A", "N/A", "N/A"]
    rate = node.seen_flows / (node.uptime_ns / 1e9) if node.uptime_ns else 0.0
    share = f" ({node.num_flows / node.max_flows * 100:6.2f}%)" if node.max_flows else ""
    return [elapsed(node.uptime_ns), f"{rate:.2f}", f"{node.num_flows}/{node.max_flows}{share}"]


def _tls(node: observer_pb2.Node) -> str:
    if not node.HasField("tls"):
        return "N/A"
    return "Enabled" if node.tls.enabled else "Disabled"


def _print_json(messages: Iterable[Any]) -> None:
    found = [json_format.MessageToDict(message, preserving_proto_field_name=True) for message in messages]
    print(json.dumps(found, indent=2, ensure_ascii=False))
