"""`ciliate config`: what processes use, and what the cluster is configured with."""

from __future__ import annotations

from typing import Annotated

import typer
from ciliate.cli.cluster import NameOption, NodeOption, find_cluster
from ciliate.cli.node import OutputOption, ProcessOption, print_rows

config = typer.Typer(help="Show each setting's value and where it came from; view, set and delete the cluster's.")

RestartOption = Annotated[
    bool, typer.Option("--restart/--no-restart", "-r", help="Have what uses the setting take it up.")
]
KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="As ipam.mode.")]


@config.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    name: NameOption = "lab",
    node: NodeOption = "",
    process: ProcessOption = "agent",
    output: OutputOption = "table",
) -> None:
    """Show each setting's value and where it came from, as a process has it."""
    if context.invoked_subcommand is None:
        with find_cluster(name).client(node, process) as client:
            print_rows(client.get("/config"), ["key", "value", "origin"], output)


@config.command()
def view(name: NameOption = "lab", output: OutputOption = "table") -> None:
    """Show what is set for the whole cluster."""
    rows = [{"key": key, "value": value} for key, value in sorted(find_cluster(name).settings().items())]
    print_rows(rows, ["key", "value"], output)


@config.command("set")
def set_(
    key: KeyArgument,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="A YAML scalar or flow collection.")],
    restart: RestartOption = True,
    name: NameOption = "lab",
) -> None:
    """Set a value for the whole cluster; one that would be refused changes nothing."""
    print("\n".join(find_cluster(name).change({key: value}, restart)))


@config.command()
def delete(key: KeyArgument, restart: RestartOption = True, name: NameOption = "lab") -> None:
    """Take a setting back: its default holds again."""
    print("\n".join(find_cluster(name).change({key: None}, restart)))
