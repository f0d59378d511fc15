"""Commands about one process of a node: status, config, plugins, tables, maps, metrics."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ciliate.cli.cluster import NameOption, NodeOption, find_cluster
from ciliate.cli.dispatch import CommandError

ProcessOption = Annotated[str, typer.Option("--process", help="Which process of the node.")]
OutputOption = Annotated[str, typer.Option("-o", "--output", help="table or json.")]


def print_rows(rows: list[dict[str, Any]], columns: list[str], output: str) -> None:
    """Print rows as an aligned table of some columns, or whole as JSON. Raises CommandError on another format."""
    if output == "json":
        print(json.dumps(rows, indent=2, default=str))
        return
    if output != "table":
        raise CommandError(f"-o {output}: use table or json")
    cells = [[column.upper().replace("_", " ") for column in columns]]
    cells += [[_cell(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(str(item) for item in value)
    return str(value)


def _get(path: str, name: str, node: str, process: str) -> Any:
    with find_cluster(name).client(node, process) as client:
        return client.get(path)


def status(
    name: NameOption = "lab", node: NodeOption = "", process: ProcessOption = "agent", output: OutputOption = "table"
) -> None:
    """Say whether a node's process is ready, and why not; exit with 1 if it is not."""
    answer = _get("/status", name, node, process)
    if output == "json":
        print(json.dumps(answer, indent=2))
    else:
        print(
            f"{answer['process']} of node {answer['node']}, cluster {answer['cluster']}, version {answer['version']}:"
        )
        print("  ready" if answer["ready"] else "  not ready")
        for plugin, reasons in answer["reasons"].items():
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
    """List plugins with their hooks, tables, maps and tasks."""
    rows = _get("/plugins", name, node, process)
    if output == "table":
        for row in rows:
            row["tasks"] = [f"{t['name']} {t['state']}" for t in row["tasks"]]
            row["setup_ms"] = f"{row['setup_seconds'] * 1000:.1f}"
    print_rows(rows, ["name", "state", "setup_ms", "tables", "maps", "tasks", "reason"], output)


def table(
    table_name: Annotated[str, typer.Argument(metavar="TABLE")],
    name: NameOption = "lab",
    node: NodeOption = "",
    process: ProcessOption = "agent",
) -> None:
    """Show all rows of a table, as JSON."""
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
