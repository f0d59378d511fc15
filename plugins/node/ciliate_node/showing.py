"""Commands about one process of a node: status, config, plugins, tables, maps, metrics; and what the kernel can do."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from ciliate.cli.cluster import NameOption, NodeOption, find_cluster
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


def config(
    name: NameOption = "lab", node: NodeOption = "", process: ProcessOption = "agent", output: OutputOption = "table"
) -> None:
    """Show each setting's value and where it came from."""
    print_rows(_get("/config", name, node, process), ["key", "value", "origin"], output)


def plugins(
    name: NameOption = "lab", node: NodeOption = "", process: ProcessOption = "agent", output: OutputOption = "table"
) -> None:
    """List plugins with their hooks, tables, maps and tasks, what they held the loop for, and what is queued."""
    rows = _get("/plugins", name, node, process)
    if output == "table":
        for row in rows:
            row["tasks"] = [f"{t['name']} {t['state']}" for t in row["tasks"]]
            row["hooks_ms"] = f"{sum(row['hook_seconds'].values()) * 1000:.1f}"
            held = row["held"]
            row["held_loop"] = f"{held['times']}x, {held['longest'] * 1000:.0f} ms in {held['where']}" if held else ""
    print_rows(rows, ["name", "state", "hooks_ms", "held_loop", "tables", "maps", "tasks", "reason"], output)
    if output == "table":
        loop = _get("/loop", name, node, process)
        print(
            f"\n{process}: loop busy {loop['busy']:.1%}, held over 10 ms {loop['held']} times, longest"
            f" {loop['longest'] * 1000:.0f} ms (core: {loop['core'] or 'none'}); kernel calls waiting: {loop['worker']}"
        )
        print_rows([queue for queue in loop["queues"] if queue["length"]], ["kind", "name", "length"], output)


def table(
    table_name: Annotated[str, typer.Argument(metavar="TABLE")],
    name: NameOption = "lab",
    node: NodeOption = "",
    process: Annotated[str, typer.Option("--process", help="As this process sees it; default: the writer.")] = "",
) -> None:
    """Show all rows of a table, as JSON."""
    if not process:
        found = cards(find_cluster(name).socket(node).parent)
        process = next((card.process for card in found if table_name in card.tables), "agent")
    print(json.dumps(_get(f"/tables/{table_name}", name, node, process), indent=2, default=str))


def maps(
    name: NameOption = "lab", node: NodeOption = "", process: ProcessOption = "agent", output: OutputOption = "table"
) -> None:
    """List the node's BPF maps and their owners."""
    columns = ["name", "owner", "type", "key_size", "value_size", "max_entries", "description"]
    print_rows(_get("/maps", name, node, process), columns, output)


def metrics(name: NameOption = "lab", node: NodeOption = "", process: ProcessOption = "agent") -> None:
    """Print a process's metrics in Prometheus's text form."""
    print(_get("/metrics", name, node, process), end="")


def version() -> None:
    """Print Ciliate's version."""
    from ciliate import __version__

    print(f"ciliate {__version__}")


def probe() -> None:
    """Try what this machine's kernel can do, by name."""
    from ciliate.kernel.probe import probe_all

    rows = [
        {"feature": r.feature.value, "since": r.feature.since, "here": "yes" if r.available else f"no: {r.detail}"}
        for r in probe_all()
    ]
    print_rows(rows, ["feature", "since", "here"], "table")
