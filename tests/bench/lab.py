"""Ciliate as it is measured: one node of a lab, driven by the lab's own commands and read through its API socket.

Pods only lend their namespaces: their command sleeps, and the measuring programs enter by themselves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ciliate.api.client import Client, NotServedError
from ciliate.cli.cluster import CLUSTERS, find_cluster
from ciliate.config import core_config, load_settings
from ciliate.kernel import syscall
from ciliate.kernel.probe import Feature, probe
from ciliate.maps.map import Map
from ciliate.maps.spec import MapSpec

from tests.bench import spaces
from tests.bench.cniplugin import Plugin
from tests.bench.spaces import Link

UP_SECONDS = 120
WAIT_SECONDS = 120
Manifest = dict[str, Any]


class LabError(Exception):
    """A command of the lab failed, or what was waited for did not come."""


def until(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Wait for a condition. Raises LabError, with `what`, when the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise LabError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


class Lab:
    """One lab with one node, under a name of its own. Use as a context: it is taken down whatever happens."""

    def __init__(self, name: str, settings: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._settings = dict(settings or {})

    def __enter__(self) -> Lab:
        self.command("lab", "up", *(word for pair in self._settings.items() for word in ("--set", "=".join(pair))))
        return self

    def __exit__(self, *_: object) -> None:
        self.command("lab", "down")

    def command(self, *words: str, given: str = "") -> str:
        """Run a command of `ciliate` about this lab; its output."""
        program = Path(sys.executable).with_name("ciliate")
        environment = os.environ | {"CILIATE_LAB": self.name}
        done = subprocess.run(
            [program, *words], input=given, env=environment, capture_output=True, text=True, check=False,
            timeout=UP_SECONDS,
        )  # fmt: skip
        if done.returncode:
            said = (done.stderr + done.stdout).strip()
            raise LabError(
                f"`ciliate {' '.join(words)}` in lab {self.name} ended with {done.returncode}: {said[-3000:]}"
            )
        return done.stdout

    @property
    def folder(self) -> Path:
        """The node's folder."""
        return CLUSTERS / self.name / "nodes" / find_cluster(self.name).nodes()[0]

    @property
    def _config_file(self) -> Path:
        return self.folder / "ciliate.yaml"

    @property
    def host(self) -> Path:
        """The node's network namespace."""
        return spaces.NETNS / f"ciliate.{self.name}.{self.folder.name}"

    def client(self) -> Client:
        """A connection to the agent."""
        return find_cluster(self.name).client()

    def table(self, name: str) -> list[dict[str, Any]]:
        """All rows of one of the agent's tables."""
        with self.client() as client:
            rows = client.get(f"/tables/{name}")
        return list(rows["rows"] if isinstance(rows, dict) else rows)

    def processes(self) -> dict[str, int]:
        """Pids of the node's processes and the lab's supervisor, by name."""
        running = json.loads((self.folder.parent.parent / "running.json").read_bytes())
        found = {process["name"]: int(process["pid"]) for process in running["processes"] if process["pid"]}
        return found | {"supervisor": int(running["supervisor"])}

    def pin(self, cpus: set[int]) -> None:
        """Keep every thread of the node's processes on some CPUs."""
        for pid in self.processes().values():
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), cpus)

    def ready(self) -> bool:
        """Whether the agent answers and says that it is ready."""
        try:
            with self.client() as client:
                return bool(client.get("/status")["ready"])
        except (NotServedError, OSError):
            return False

    def apply(self, manifests: Iterable[Manifest], wait: bool = True) -> None:
        """Apply objects; with `wait`, until they are enforced."""
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        self.command("apply", "-f", "-", *(["--wait"] if wait else []), given=document)

    def map(self, spec: MapSpec) -> Map:
        """One of the node's maps, writable: for filling it with what a large cluster would."""
        config = core_config(load_settings(self._config_file))
        return Map(spec, syscall.get_pinned(Path(config.node.bpffs) / "maps" / spec.name))

    def pods(self, pods: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Any]]:
        """Make pods, given by name and labels; their rows of `endpoints`, once their policy is in the kernel."""
        self.apply([pod(name, labels) for name, labels in pods.items()])

        def realised() -> dict[str, dict[str, Any]]:
            decided = {row["id"] for row in self.table("endpoint_policies") if row["ingress_policy"]}
            return {row["pod"]: row for row in self.table("endpoints") if row["pod"] in pods and row["id"] in decided}

        until(lambda: len(realised()) == len(pods), f"{len(pods)} pods with policies")
        return realised()

    def await_tcx(self) -> None:
        """Wait until every pod's program has moved to tcx, where the kernel has it: so a pod spends its life."""
        if not probe(Feature.TCX).available:
            return

        def moved() -> bool:
            with self.client() as client:
                return {endpoint["attached"] for endpoint in client.get("/endpoints")} <= {"tcx"}

        until(moved, "every pod's program by tcx")

    def link(self, name: str, client: Mapping[str, Any], servers: Iterable[Mapping[str, Any]]) -> Link:
        """A link between pods, given as rows of `endpoints`."""
        rows = list(servers)
        addresses = {4: tuple(row["ipv4"] for row in rows), 6: tuple(row["ipv6"] for row in rows)}
        return Link(name, Path(client["netns"]), tuple(Path(row["netns"]) for row in rows), addresses)

    def plugin(self) -> Plugin:
        """The CNI plugin of the node, as its agent has installed it for a runtime."""
        binaries, (file, *_) = self.folder / "cni/bin", sorted((self.folder / "cni/net.d").glob("*.conflist"))
        listed = json.loads(file.read_bytes())
        first = listed["plugins"][0] | {"name": listed["name"], "cniVersion": listed["cniVersion"]}
        return Plugin("ciliate", binaries / first["type"], first, self.host, (binaries,))


def pod(name: str, labels: Mapping[str, str]) -> Manifest:
    """A pod that only lends its namespace."""
    container = {"name": "idle", "image": "none", "command": ["sleep", "infinity"]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    metadata = {"name": name, "namespace": "default", "labels": dict(labels)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def allow_policy(
    name: str, to: Mapping[str, str], source: Mapping[str, str], ports: Iterable[tuple[int, int]]
) -> Manifest:
    """A CiliumNetworkPolicy: pods labelled `to` may be reached from `source` on port ranges by TCP and UDP."""
    listed = [
        {"port": str(first), "endPort": last, "protocol": protocol}
        for first, last in ports
        for protocol in ("TCP", "UDP")
    ]
    rule = {"fromEndpoints": [{"matchLabels": dict(source)}], "toPorts": [{"ports": listed}]}
    spec = {"endpointSelector": {"matchLabels": dict(to)}, "ingress": [rule]}
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec}
