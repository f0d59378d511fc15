"""Commands of `ciliate-dbg`: endpoint list and get, bpf ct list, bpf metrics list, points list, monitor."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from ciliate.cli.cluster import NameOption, NodeOption, find_cluster
from ciliate.cli.node import OutputOption, print_rows

endpoint = typer.Typer(help="Endpoints of this node.", no_args_is_help=True)
bpf_ct = typer.Typer(help="Conntrack.", no_args_is_help=True)
bpf_metrics = typer.Typer(help="Packet counters.", no_args_is_help=True)
points = typer.Typer(help="Plugins' programs in a packet's path.", no_args_is_help=True)

TypeOption = Annotated[str, typer.Option("-t", "--type", help="drop, trace, policy-verdict, sock; several by commas.")]
FromOption = Annotated[str, typer.Option("--from", help="Only from this endpoint id.")]
ToOption = Annotated[str, typer.Option("--to", help="Only to this endpoint id.")]
RelatedOption = Annotated[str, typer.Option("--related-to", help="Only from or to this endpoint id.")]
CountOption = Annotated[int, typer.Option("-n", "--count", help="End after so many events; 0: never.")]


@endpoint.callback()
@bpf_ct.callback()
@bpf_metrics.callback()
@points.callback()
def _group() -> None:
    """Keeps a group of one command a group."""


@endpoint.command("list")
def endpoint_list(name: NameOption = "lab", node: NodeOption = "", output: OutputOption = "table") -> None:
    """List the pods of a node with their identities and whether policy is enforced."""
    rows = _get("/endpoints", name, node)
    if output == "table":
        for row in rows:
            policy = row["policy"] or {}
            row["ingress"] = "enforcing" if policy.get("ingress_enforcing") else "default"
            row["egress"] = "enforcing" if policy.get("egress_enforcing") else "default"
            row["pod"] = f"{row['namespace']}/{row['pod']}" if row["pod"] else row["container_id"]
            row["ipv4"], row["ipv6"] = row["ipv4"] or "", row["ipv6"] or ""
    print_rows(rows, ["id", "pod", "identity", "ingress", "egress", "ipv4", "ipv6", "state"], output)


@endpoint.command("get")
def endpoint_get(
    which: Annotated[str, typer.Argument(metavar="ID", help="Id, namespace:pod, container id or address.")],
    name: NameOption = "lab",
    node: NodeOption = "",
    output: OutputOption = "table",
) -> None:
    """Show everything about one endpoint."""
    found = _get(f"/endpoints/{which}", name, node)
    if output == "json":
        print(json.dumps(found, indent=2))
        return
    print_rows([{"field": key, "value": value} for key, value in found.items()], ["field", "value"], output)


@bpf_ct.command("list")
def ct_list(name: NameOption = "lab", node: NodeOption = "", output: OutputOption = "table") -> None:
    """List conntrack entries: the flows that a node's data path remembers."""
    columns = ["protocol", "source", "source_port", "destination", "destination_port", "state", "leg"]
    columns += ["source_identity", "destination_identity", "packets"]
    print_rows(_get("/bpf/ct", name, node), columns, output)


@bpf_metrics.command("list")
def metrics_list(name: NameOption = "lab", node: NodeOption = "", output: OutputOption = "table") -> None:
    """List packets and bytes by drop reason and direction."""
    print_rows(_get("/bpf/metrics", name, node), ["reason", "direction", "packets", "bytes"], output)


@points.command("list")
def points_list(name: NameOption = "lab", node: NodeOption = "", output: OutputOption = "table") -> None:
    """List plugins' programs by slot: what they saw and dropped, and the mean time of one packet in 1,024."""
    columns = ["point", "slot", "plugin", "program", "packets", "drops", "invalid", "missed", "nanoseconds", "reason"]
    print_rows(_get("/points", name, node), columns, output)


def monitor(
    name: NameOption = "lab",
    node: NodeOption = "",
    kind: TypeOption = "",
    source: FromOption = "",
    destination: ToOption = "",
    related: RelatedOption = "",
    count: CountOption = 0,
    output: OutputOption = "table",
) -> None:
    """Show the data path's events as they happen: one line, or with -o json one object, each."""
    query = {"type": kind, "from": source, "to": destination, "related": related}
    with find_cluster(name).client(node, timeout=None) as client:
        for number, event in enumerate(client.stream("/monitor", {k: v for k, v in query.items() if v}), 1):
            print(json.dumps(event) if output == "json" else _line(event), flush=True)
            if number == count:
                return


def _line(event: dict[str, Any]) -> str:
    if "lost" in event:
        return f"-- {event['lost']} events were lost: this reader was too slow --"
    ends = (
        f"{_end(event, 'source')} (identity {event['source_identity']}) ->"
        f" {_end(event, 'destination')} (identity {event['destination_identity']})"
    )
    whose = f" {event['plugin']}" if event.get("plugin") else ""
    what = f"drop ({event['drop_reason']}{whose})" if event["type"] == "drop" else event["type"]
    flags = f" {event['tcp_flags']}" if event["tcp_flags"] else ""
    sides = [f"{side} {', '.join(event[f'rules_{side}'])}" for side in ("egress", "ingress") if event[f"rules_{side}"]]
    rules = f" by {'; '.join(sides)}" if sides else ""
    return f"{event['time'] / 1e9:.6f} {what} {event['point']} {ends} {event['protocol']}{flags}{rules}"


def _end(event: dict[str, Any], side: str) -> str:
    address = event[side]
    host = f"[{address}]" if ":" in address else address
    return host if event["protocol"].startswith("ICMP") else f"{host}:{event[f'{side}_port']}"


def _get(path: str, name: str, node: str) -> Any:
    with find_cluster(name).client(node) as client:
        return client.get(path)
