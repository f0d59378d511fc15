"""Which cluster and which node a command is about.

A cluster on this machine is a folder <root>/<name>/ with ciliate.yaml and nodes/<node>/ciliate.yaml. Where there is
none, the node that /etc/ciliate/ciliate.yaml (or CILIATE_CONFIG) configures is meant.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ciliate.api.client import Client, NodeClient
from ciliate.cli.dispatch import CommandError
from ciliate.config import DEFAULT_FILE, CoreConfig, core_config, load_settings
from ciliate.places import node_place, open_store
from ciliate.store import Store

CLUSTERS = Path("/run/ciliate/clusters")

NameOption = Annotated[str, typer.Option("--name", envvar="CILIATE_LAB", help="The lab: a cluster on this machine.")]
NodeOption = Annotated[str, typer.Option("--node", help="The node; default: the only one, or the first.")]


@dataclass(frozen=True)
class Cluster:
    """A cluster that can be reached from here."""

    name: str
    config_file: Path

    @property
    def config(self) -> CoreConfig:
        """The core's sections of the cluster's configuration."""
        return core_config(load_settings(self.config_file))

    def nodes(self) -> dict[str, Path]:
        """Configuration files of the nodes on this machine, by name."""
        found = {path.parent.name: path for path in sorted(self.config_file.parent.glob("nodes/*/ciliate.yaml"))}
        if found:
            return found
        config = self.config
        return {node_place(config, "agent", "agent").name: self.config_file}

    def open_store(self) -> Store:
        """The cluster's store, for this process's own use."""
        return open_store(self.config)

    def socket(self, node: str = "", process: str = "agent") -> Path:
        """The API socket of a process of a node (empty: the first). Raises CommandError."""
        nodes = self.nodes()
        if node and node not in nodes:
            raise CommandError(f"cluster {self.name}: no node {node!r} here; there are {', '.join(nodes) or 'none'}")
        file = nodes[node] if node else next(iter(nodes.values()))
        return Path(core_config(load_settings(file)).node.run_dir) / f"{process}.sock"

    def client(self, node: str = "", process: str = "", timeout: float | None = 30.0) -> Client:
        """A client of a process of a node; without one, of whichever process serves the route."""
        return Client(self.socket(node, process), timeout) if process else NodeClient(self.socket(node), timeout)


def find_cluster(name: str = "lab") -> Cluster:
    """The cluster of a name, else the one that this machine is a node of. Raises CommandError."""
    file = CLUSTERS / name / "ciliate.yaml"
    if file.exists():
        return Cluster(name, file)
    configured = Path(os.environ.get("CILIATE_CONFIG", str(DEFAULT_FILE)))
    if configured.exists():
        return Cluster(core_config(load_settings(configured)).cluster.name, configured)
    known = ", ".join(sorted(p.parent.name for p in CLUSTERS.glob("*/ciliate.yaml"))) or "none"
    raise CommandError(
        f"no cluster {name!r} (running: {known}) and no {configured}; start a lab with `ciliate lab up --name {name}`,"
        " or name one with --name or CILIATE_LAB"
    )
