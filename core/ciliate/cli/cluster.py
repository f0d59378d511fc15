"""Which cluster and which node a command is about.

A cluster on this machine is a folder <root>/<name>/ with ciliate.yaml and nodes/<node>/ciliate.yaml. Where there is
none, the node that /etc/ciliate/ciliate.yaml (or CILIATE_CONFIG) configures is meant; where there is none either, what
a driver of the group `ciliate.clusters` finds: a cluster elsewhere. `ciliate --context NAME` means that one at once.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Protocol

import typer
import yaml

from ciliate.api.client import Client, NodeClient
from ciliate.cli.dispatch import CONTEXT, KUBECONFIG, CommandError
from ciliate.cli.report import Report, report_nodes
from ciliate.config import DEFAULT_FILE, CoreConfig, core_config, load_settings
from ciliate.loading import load_driver
from ciliate.places import node_place, open_store
from ciliate.store import Store

CLUSTERS = Path("/run/ciliate/clusters")
GROUP = "ciliate.clusters"
DEFAULT_NAME = "lab"

NameOption = Annotated[
    str,
    typer.Option("--name", envvar="CILIATE_LAB", help="The lab, a cluster on this machine; or a kubeconfig context."),
]
NodeOption = Annotated[str, typer.Option("--node", help="The node; default: the only one, or the first.")]


class Cluster(ABC):
    """A cluster that can be reached from here."""

    name: str

    @property
    @abstractmethod
    def config(self) -> CoreConfig:
        """The core's sections of the cluster's configuration, with a store that can be reached from here."""

    @abstractmethod
    def nodes(self) -> list[str]:
        """Names of the nodes that can be asked."""

    @abstractmethod
    def client(self, node: str = "", process: str = "", timeout: float | None = 30.0) -> Client:
        """A client of a process of a node (empty: the first); without one, of whichever process serves the route.

        Raises CommandError if there is no such node, NotServedError.
        """

    @abstractmethod
    def report(self) -> Report:
        """How all of it fares."""

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """What is configured for the whole cluster, by dotted path; values as YAML scalars or flow collections."""

    @abstractmethod
    def change(self, values: Mapping[str, str | None], restart: bool = True) -> list[str]:
        """Set values, None removes one, and have what needs them take them up; lines that say what was done.

        Raises ConfigError if the outcome would be refused: then nothing was changed. CommandError if it can't be done.
        """

    def open_store(self) -> Store:
        """The cluster's store, for this process's own use."""
        return open_store(self.config)


class LocalCluster(Cluster):
    """A cluster of which nodes run on this machine."""

    def __init__(self, name: str, config_file: Path) -> None:
        self.name = name
        self.file = config_file

    @property
    def config(self) -> CoreConfig:
        """As the file has it."""
        return core_config(load_settings(self.file))

    def nodes(self) -> list[str]:
        """Those of this machine."""
        return list(self._files())

    def socket(self, node: str = "", process: str = "agent") -> Path:
        """The API socket of a process of a node (empty: the first). Raises CommandError."""
        files = self._files()
        if node and node not in files:
            raise CommandError(f"cluster {self.name}: no node {node!r} here; there are {', '.join(files) or 'none'}")
        file = files[node] if node else next(iter(files.values()))
        return Path(core_config(load_settings(file)).node.run_dir) / f"{process}.sock"

    def client(self, node: str = "", process: str = "", timeout: float | None = 30.0) -> Client:
        """A client of a socket; without a process one that looks into the node's directory."""
        return Client(self.socket(node, process), timeout) if process else NodeClient(self.socket(node), timeout)

    def report(self) -> Report:
        """From the cards of all nodes' processes."""
        return report_nodes(self.name, {node: self.socket(node).parent for node in self.nodes()})

    def settings(self) -> dict[str, str]:
        """What the file says."""
        return flat(load_settings(self.file, environment={}).tree)

    def change(self, values: Mapping[str, str | None], restart: bool = True) -> list[str]:
        """A file is its owner's: not changed from here."""
        raise CommandError(f"this cluster is configured by {self.file}: change it there, then start its processes anew")

    def _files(self) -> dict[str, Path]:
        """Configuration files of the nodes on this machine, by name."""
        found = {path.parent.name: path for path in sorted(self.file.parent.glob("nodes/*/ciliate.yaml"))}
        return found or {node_place(self.config, "agent", "agent").name: self.file}


class ClusterDriver(Protocol):
    """Finds clusters that are not on this machine (group `ciliate.clusters`)."""

    def __call__(self, name: str) -> Cluster | None:
        """The cluster of a name (empty: the current one), or None if there is nothing to be found by."""


def find_cluster(name: str = DEFAULT_NAME) -> Cluster:
    """The lab of a name, else the context of that name; else the node that this machine is, else the current context.

    Raises CommandError.
    """
    file = CLUSTERS / name / "ciliate.yaml"
    asked = bool(os.environ.get(CONTEXT) or os.environ.get(KUBECONFIG))
    if file.exists() and not asked:
        return LocalCluster(name, file)
    if name != DEFAULT_NAME and not asked and (found := _elsewhere(name)):
        return found
    configured = Path(os.environ.get("CILIATE_CONFIG", str(DEFAULT_FILE)))
    if configured.exists() and not asked:
        return LocalCluster(core_config(load_settings(configured)).cluster.name, configured)
    if (name == DEFAULT_NAME or asked) and (found := _elsewhere(os.environ.get(CONTEXT, ""))):
        return found
    known = ", ".join(sorted(p.parent.name for p in CLUSTERS.glob("*/ciliate.yaml"))) or "none"
    raise CommandError(
        f"no lab {name!r} (running: {known}), no {configured}, and no kubeconfig that leads to a cluster; start a lab"
        f" with `ciliate lab up --name {name}`, name one with --name or CILIATE_LAB, or give --kubeconfig or --context"
    )


def _elsewhere(name: str) -> Cluster | None:
    """What a driver finds by a name (empty: the current cluster)."""
    for driver in sorted({point.name for point in entry_points(group=GROUP)}):
        find: ClusterDriver = load_driver(GROUP, driver)
        if found := find(name):
            return found
    return None


def flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested sections as dotted paths."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = _flow(value)
    return found


def _flow(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1 << 20)
    return text.removesuffix("...\n").strip()
