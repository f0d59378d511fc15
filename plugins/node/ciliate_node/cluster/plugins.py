"""`ciliate plugins`: what is installed and enabled, and enabling it."""

from __future__ import annotations

from typing import Annotated, Any

import typer
import yaml
from ciliate.api.routes import ApiError
from ciliate.cli.cluster import Cluster, NameOption, NodeOption, find_cluster
from ciliate.cli.dispatch import CommandError
from ciliate.cli.node import OutputOption, ProcessOption, print_rows
from ciliate.loading import available

plugins = typer.Typer(help="List plugins with their hooks, tables, maps and tasks; enable and disable them.")
PluginArgument = Annotated[str, typer.Argument(metavar="NAME")]


@plugins.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    name: NameOption = "lab",
    node: NodeOption = "",
    process: ProcessOption = "agent",
    output: OutputOption = "table",
) -> None:
    """List plugins with their hooks, tables, maps and tasks, what they held the loop for, and what is queued."""
    if context.invoked_subcommand is not None:
        return
    with find_cluster(name).client(node, process) as client:
        rows, loop = client.get("/plugins"), client.get("/loop")
    if output == "table":
        for row in rows:
            row["tasks"] = [f"{t['name']} {t['state']}" for t in row["tasks"]]
            row["hooks_ms"] = f"{sum(row['hook_seconds'].values()) * 1000:.1f}"
            held = row["held"]
            row["held_loop"] = f"{held['times']}x, {held['longest'] * 1000:.0f} ms in {held['where']}" if held else ""
    print_rows(rows, ["name", "state", "hooks_ms", "held_loop", "tables", "maps", "tasks", "reason"], output)
    if output == "table":
        print(
            f"\n{process}: loop busy {loop['busy']:.1%}, held over 10 ms {loop['held']} times, longest"
            f" {loop['longest'] * 1000:.0f} ms (core: {loop['core'] or 'none'}); kernel calls waiting: {loop['worker']}"
        )
        print_rows([queue for queue in loop["queues"] if queue["length"]], ["kind", "name", "length"], output)


@plugins.command()
def enable(plugin: PluginArgument, name: NameOption = "lab") -> None:
    """Enable a plugin in the whole cluster, and start what it runs in anew."""
    cluster = find_cluster(name)
    enabled = _enabled(cluster)
    if plugin in enabled:
        print(f"plugin {plugin} is enabled already")
        return
    known = _known(cluster)
    if plugin not in known:
        raise CommandError(f"plugin {plugin} is not installed in the cluster; there are {', '.join(sorted(known))}")
    _change(cluster, [*enabled, plugin])


@plugins.command()
def disable(plugin: PluginArgument, name: NameOption = "lab") -> None:
    """Disable a plugin in the whole cluster."""
    cluster = find_cluster(name)
    enabled = _enabled(cluster)
    if plugin not in enabled:
        raise CommandError(f"plugin {plugin} is not enabled; enabled are {', '.join(enabled)}")
    _change(cluster, [other for other in enabled if other != plugin])


def _enabled(cluster: Cluster) -> list[str]:
    value: Any = yaml.safe_load(cluster.settings().get("plugins", "[]"))
    return value.replace(",", " ").split() if isinstance(value, str) else list(value or ())


def _known(cluster: Cluster) -> set[str]:
    """Plugins that the cluster's agents have; those of this program where no agent answers."""
    try:
        with cluster.client(process="agent") as client:
            return {row["name"] for row in client.get("/plugins") if not row["reason"].startswith("is not installed")}
    except (ApiError, CommandError):
        return set(available())


def _change(cluster: Cluster, names: list[str]) -> None:
    print("\n".join(cluster.change({"plugins": f"[{', '.join(names)}]"})))
