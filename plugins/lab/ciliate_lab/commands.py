"""The commands `ciliate lab ...`."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from ciliate.cli.cluster import NameOption
from ciliate.cli.dispatch import CommandError
from ciliate.store import NotFoundError

from ciliate_lab import assembly, network, pods, preflight, report, supervisor, teardown
from ciliate_lab.cgroups import CgroupError
from ciliate_lab.place import CLUSTERS, LabError, LabPlace

app = typer.Typer(
    help="A cluster on this machine, without Kubernetes: nodes are network namespaces, pods are processes.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

UP_TIMEOUT = 60.0
NamespaceOption = Annotated[str, typer.Option("-n", "--namespace", help="The pod's namespace.")]
TimeoutOption = Annotated[float, typer.Option("--timeout", help="Seconds to wait at most.")]
PodArgument = Annotated[str, typer.Argument(metavar="NAME")]
CommandArgument = Annotated[list[str], typer.Argument(metavar="-- COMMAND...")]


@app.command()
def up(
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=network.MOST_NODES, help="How many nodes.")] = 1,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting for every process.")
    ] = None,
    name: NameOption = "lab",
    timeout: TimeoutOption = UP_TIMEOUT,
) -> None:
    """Start a lab; returns when every node is ready. Of a lab whose supervisor was killed: start that anew."""
    began = time.monotonic()

    def progress(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)

    lab = _lab(name)
    try:
        preflight.check_machine()
        if supervisor.resume(lab):
            progress(f"the supervisor of lab {lab.name} had ended: started anew, with what still runs")
            report.wait_ready(lab, timeout)
            return
        preflight.check_free(lab)
        assembly.check_overrides(overrides or ())
        CLUSTERS.mkdir(parents=True, exist_ok=True)
        lab.folder.mkdir()  # the name is ours from here: of two at once, one fails
    except FileExistsError as error:
        raise CommandError(f"lab {lab.name!r} is being started by another command") from error
    except LabError as error:
        raise CommandError(str(error)) from error
    handle = os.open(lab.folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        assembly.put_up(lab, nodes, overrides or (), progress)
        progress("waiting until all are ready")
        report.wait_ready(lab, timeout)
    except BaseException as error:
        teardown.take_down(lab)
        if isinstance(error, (LabError, CgroupError, OSError)):
            raise CommandError(f"lab {lab.name} could not be started, and was removed again: {error}") from error
        raise
    progress(f"ready: lab {lab.name}, {nodes} node{'s' if nodes > 1 else ''}")
    if lab.relay_socket.exists():
        print(f"flows: `ciliate hubble observe`, or `hubble observe --server unix://{lab.relay_socket}`")


@app.command()
def run(
    pod: PodArgument,
    command: CommandArgument,
    namespace: NamespaceOption = "default",
    node: Annotated[str, typer.Option("--node", help="The node; default: the one with the fewest pods.")] = "",
    labels: Annotated[list[str] | None, typer.Option("-l", "--label", metavar="KEY=VALUE")] = None,
    service_account: Annotated[str, typer.Option("--service-account", metavar="SA")] = "",
    ports: Annotated[list[str] | None, typer.Option("--port", metavar="NAME:NUMBER/PROTO")] = None,
    name: NameOption = "lab",
    timeout: TimeoutOption = 30.0,
) -> None:
    """Run a command in a new pod; returns when the pod is Ready and its ports listen."""
    try:
        wanted = pods.pod_object(pod, namespace, command, node, labels or (), service_account, ports or ())
        made = asyncio.run(pods.run_pod(_lab(name), wanted, timeout))
    except LabError as error:
        raise CommandError(str(error)) from error
    addresses = " ".join(entry["ip"] for entry in made["status"].get("podIPs") or [])
    print(f"pod {namespace}/{pod} is ready on {made['spec']['nodeName']}: {addresses}")


@app.command("exec")
def execute(
    pod: PodArgument, command: CommandArgument, namespace: NamespaceOption = "default", name: NameOption = "lab"
) -> None:
    """Run a command inside a pod; exits with the command's status."""
    try:
        found, node = asyncio.run(pods.find_pod(_lab(name), pod, namespace))
        record = pods.pod_record(found, node)
        sys.stdout.flush()
        pods.become(record, command)
    except LabError as error:
        raise CommandError(str(error)) from error


@app.command()
def logs(
    pod: Annotated[str, typer.Argument(metavar="[NAME]")] = "",
    namespace: NamespaceOption = "default",
    process: Annotated[
        str, typer.Option("--process", metavar="[NODE/]PROCESS", help="Of a process instead: operator, node1/agent.")
    ] = "",
    name: NameOption = "lab",
) -> None:
    """Print what a pod's command, or a process of the lab, has said."""
    lab = _lab(name)
    if bool(pod) == bool(process):
        raise CommandError("name a pod, or a process with --process; `ciliate lab status` lists them")
    try:
        if pod:
            _, node = asyncio.run(pods.find_pod(lab, pod, namespace))
            path = node.pod_log(namespace, pod)
        else:
            running = supervisor.read_running(lab)
            processes = running.processes if running is not None else []
            known = {f"{p.node}/{p.name}" if p.node else p.name: Path(p.log) for p in processes}
            known["supervisor"] = lab.supervisor_log
            if process not in known:
                raise CommandError(f"no process {process!r}; there are {', '.join(known)}")
            path = known[process]
    except LabError as error:
        raise CommandError(str(error)) from error
    if path.exists():
        sys.stdout.write(path.read_text(errors="replace"))


@app.command()
def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    namespace: NamespaceOption = "default",
    name: NameOption = "lab",
    timeout: TimeoutOption = 30.0,
) -> None:
    """Remove pods; returns when nothing is left of them."""

    async def remove() -> None:
        await asyncio.gather(*(pods.remove_pod(_lab(name), pod, namespace, timeout) for pod in names))

    try:
        asyncio.run(remove())
    except (LabError, NotFoundError) as error:
        raise CommandError(str(error)) from error


@app.command()
def status(
    output: Annotated[str, typer.Option("-o", "--output", help="table or json.")] = "table", name: NameOption = "lab"
) -> None:
    """Show nodes, processes and pods; exits with 1 if something is not ready."""
    try:
        found = report.lab_status(_lab(name))
    except LabError as error:
        raise CommandError(str(error)) from error
    if output == "json":
        print(json.dumps(found, indent=2))
    else:
        _print_status(found)
    if not found["ready"]:
        raise typer.Exit(1)


@app.command()
def down(name: NameOption = "lab") -> None:
    """Remove a lab and all that belongs to it, also one that crashed or never came up."""
    lab = _lab(name)
    try:
        with teardown.locked(lab):
            removed = teardown.take_down(lab)
    except (LabError, CgroupError, OSError) as error:
        raise CommandError(str(error)) from error
    print(f"lab {lab.name} is gone" if removed else f"there is no lab {lab.name!r}, and nothing left of one")


def _lab(name: str) -> LabPlace:
    """The lab of a name, for root: its files, sockets and namespaces are root's."""
    try:
        preflight.check_root()
        return LabPlace(name)
    except LabError as error:
        raise CommandError(str(error)) from error


def _print_status(found: dict[str, object]) -> None:
    from ciliate.cli.node import print_rows

    print(f"lab {found['name']}: {'ready' if found['ready'] else 'not ready'}")
    if isinstance(relay := found.get("relay"), dict):
        print(f"flows of all nodes: {relay['server']}")
    print()
    for key, columns in (
        ("nodes", ["name", "ready", "netns", "addresses", "pod_cidrs"]),
        ("processes", ["name", "node", "ready", "pid", "restarts", "socket"]),
        ("pods", ["namespace", "name", "node", "phase", "ready", "ips"]),
    ):
        rows = found[key]
        assert isinstance(rows, list)
        if rows:
            print_rows(rows, columns, "table")
            print()
    reasons = found["reasons"]
    assert isinstance(reasons, list)
    for reason in reasons:
        print(f"not ready: {reason}")
    degraded = found["degraded"]
    assert isinstance(degraded, list)
    for reason in degraded:
        print(f"degraded: {reason}")
