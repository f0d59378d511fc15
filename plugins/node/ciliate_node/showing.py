"""Commands of `ciliate-dbg` about one process of a node: status, tables, maps, metrics; and what the kernel can do."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from ciliate.cli.cluster import LocalCluster, NameOption, NodeOption, find_cluster
from ciliate.cli.node import OutputOption, ProcessOption, print_rows
from ciliate.directory import cards


def _get(path: str, name: str, node: str, process: str = "") -> Any:
    with find_cluster(name).client(node, process) as client:
        return client.get(path)


def status(
    name: NameOption = "lab", node: NodeOption = "", process: ProcessOption = "agent", output: OutputOption = "table"
) -> None:
    """Say whether a node's process is ready, and why not; exit with 1 if it is not. Degraded is ready."""
    answer = _get("/status", name, node, process)
    if output == "json":
        print(json.dumps(answer, indent=2))
    else:
        print(
            f"{answer['process']} of node {answer['node']}, cluster {answer['cluster']}, version {answer['version']}:"
        )
        ready = "ready, but degraded" if answer["degraded"] else "ready"
        print(f"  {ready if answer['ready'] else 'not ready'}")
        for plugin, reasons in (answer["reasons"] | answer["degraded"]).items():
            for reason in reasons:
                print(f"  {plugin}: {reason}")
    if not answer["ready"]:
        raise typer.Exit(1)


def table(
    table_name: Annotated[str, typer.Argument(metavar="TABLE")],
    name: NameOption = "lab",
    node: NodeOption = "",
    process: Annotated[str, typer.Option("--process", help="As this process sees it; default: the writer.")] = "",
) -> None:
    """Show all rows of a table, as JSON."""
    cluster = find_cluster(name)
    if not process and isinstance(cluster, LocalCluster):
        found = cards(cluster.socket(node).parent)
        process = next((card.process for card in found if table_name in card.tables), "agent")
    print(json.dumps(_get(f"/tables/{table_name}", name, node, process or "agent"), indent=2, default=str))


def maps(
    name: NameOption = "lab", node: NodeOption = "", process: ProcessOption = "agent", output: OutputOption = "table"
) -> None:
    """List the node's BPF maps and their owners."""
    columns = ["name", "owner", "type", "key_size", "value_size", "max_entries", "description"]
    print_rows(_get("/maps", name, node, process), columns, output)


def metrics(name: NameOption = "lab", node: NodeOption = "", process: ProcessOption = "agent") -> None:
    """Print a process's metrics in Prometheus's text form."""
    print(_get("/metrics", name, node, process), end="")


def probe() -> None:
    """Try what this machine's kernel can do, by name."""
    from ciliate.kernel.probe import probe_all

    rows = [
        {"feature": r.feature.value, "since": r.feature.since, "here": "yes" if r.available else f"no: {r.detail}"}
        for r in probe_all()
    ]
    print_rows(rows, ["feature", "since", "here"], "table")
