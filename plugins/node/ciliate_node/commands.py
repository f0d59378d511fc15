"""The commands `ciliate node` and `ciliate processes`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from ciliate.cli.cluster import LocalCluster, NameOption, NodeOption, find_cluster
from ciliate.cli.dispatch import CommandError
from ciliate.cli.node import OutputOption, print_rows
from ciliate.cli.processes import ConfigOption, SetOption, config_path

from ciliate_node.placement import Plan
from ciliate_node.states import lives, read_state, start_ticks


def node(
    config: ConfigOption = None,
    overrides: SetOption = None,
    log_dir: Annotated[Path | None, typer.Option(help="A log file a process here; default: our own output.")] = None,
    fork: Annotated[bool, typer.Option(help="Fork processes from one that has imported what they share.")] = True,
) -> None:
    """Run a machine's node: start its processes, keep them running, stop them in reverse."""
    from ciliate_node.supervisor import Order, become

    path, flags = config_path(config), overrides or []
    become(Order(_plan(path, flags), str(path.resolve() if path else ""), flags, str(log_dir or ""), fork))


def _plan(path: Path | None, flags: list[str]) -> Plan:
    """Have the plan made in another process. Raises CommandError with the reason of a refusal."""
    made = subprocess.run(
        [sys.executable, "-m", "ciliate_node.plan", str(path) if path else "-", *flags],
        capture_output=True,
        check=False,
    )
    said = made.stderr.decode(errors="replace").strip()
    if made.returncode:
        raise CommandError(said or f"the plan could not be made: exit status {made.returncode}")
    if said:
        print(said, file=sys.stderr)
    return msgspec.json.decode(made.stdout, type=Plan)


def processes(name: NameOption = "lab", node: NodeOption = "", output: OutputOption = "table") -> None:
    """List the processes of a machine's node, and how they fare."""
    cluster = find_cluster(name)
    if not isinstance(cluster, LocalCluster):
        raise CommandError(f"the processes of cluster {cluster.name} are containers: `ciliate status` shows them")
    run_dir = cluster.socket(node).parent
    state = read_state(run_dir)
    if state is None:
        raise CommandError(f"{run_dir}: no supervisor has run here; start one with `ciliate node`")
    rows = [{**msgspec.to_builtins(p), "state": p.state if p.pid == 0 or lives(p) else "gone"} for p in state.processes]
    if output == "table":
        if not start_ticks(state.supervisor):
            print("the supervisor does not run: processes that end stay ended", file=sys.stderr)
        for row in rows:
            row["age"] = f"{time.clock_gettime(time.CLOCK_BOOTTIME) - row['started']:.0f}s" if row["pid"] else ""
            row["isolated"] = "yes" if row["isolated"] else ""
    print_rows(
        rows, ["process", "state", "pid", "age", "restarts", "isolated", "plugins", "last_exit", "notes"], output
    )
