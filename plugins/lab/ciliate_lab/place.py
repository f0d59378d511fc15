"""Where a lab keeps things, and what they are called: all follows from its name, so that `down` needs nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ciliate_lab import cgroups

CLUSTERS = Path("/run/ciliate/clusters")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


class LabError(Exception):
    """A lab can't do what was asked; the message says what, where and how to mend it."""


@dataclass(frozen=True)
class LabPlace:
    """One lab. Its namespaces are `ciliate.<lab>.<part>`: lab names have no dots, so no two labs share a prefix."""

    name: str

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise LabError(
                f"lab name {self.name[:60]!r}: must be 1 to 32 of a-z, 0-9 and dashes, with no dash at an end"
            )

    @property
    def folder(self) -> Path:
        """All files of the lab."""
        return CLUSTERS / self.name

    @property
    def config(self) -> Path:
        """The operator's configuration, which the CLI reads as the cluster's."""
        return self.folder / "ciliate.yaml"

    @property
    def store(self) -> Path:
        """The cluster's objects."""
        return self.folder / "store.sqlite"

    @property
    def processes(self) -> Path:
        """What the supervisor is to run: a JSON list of `supervisor.ProcessSpec`."""
        return self.folder / "processes.json"

    @property
    def running(self) -> Path:
        """What the supervisor runs: a JSON object, rewritten at each change."""
        return self.folder / "running.json"

    @cached_property
    def cgroup(self) -> Path:
        """The cgroup that holds every process of the lab, and so says which they are."""
        return cgroups.root() / f"ciliate.{self.name}"

    @property
    def prefix(self) -> str:
        """What the names of its network namespaces begin with."""
        return f"ciliate.{self.name}."

    @property
    def outside(self) -> str:
        """The network namespace that stands for the rest of the world."""
        return f"{self.prefix}outside"

    @property
    def run_dir(self) -> Path:
        """Sockets of the cluster's own processes."""
        return self.folder / "run"

    @property
    def relay_socket(self) -> Path:
        """Where the relay serves the flows of all nodes."""
        return self.run_dir / "hubble" / "relay.sock"

    @property
    def logs(self) -> Path:
        """Logs of the cluster's own processes."""
        return self.folder / "logs"

    def socket(self, process: str) -> Path:
        """The API of one of its own processes: operator, relay."""
        return self.run_dir / f"{process}.sock"

    @property
    def supervisor_log(self) -> Path:
        """What the supervisor says."""
        return self.folder / "logs" / "supervisor.log"

    def node(self, number: int) -> LabNode:
        """The node of a number from 1."""
        return LabNode(self, number)

    def nodes(self) -> list[LabNode]:
        """The nodes that have a folder."""
        names = [path.name for path in (self.folder / "nodes").glob("node*")]
        return [self.node(n) for n in sorted(int(name.removeprefix("node")) for name in names)]


@dataclass(frozen=True)
class LabNode:
    """One node of a lab."""

    lab: LabPlace
    number: int

    @property
    def name(self) -> str:
        """As its Node object."""
        return f"node{self.number}"

    @property
    def folder(self) -> Path:
        """All files of the node: run, state, bpf, cni, logs."""
        return self.lab.folder / "nodes" / self.name

    @property
    def config(self) -> Path:
        """The configuration of its processes."""
        return self.folder / "ciliate.yaml"

    @property
    def run_dir(self) -> Path:
        """Its sockets."""
        return self.folder / "run"

    @property
    def state_dir(self) -> Path:
        """What its processes keep."""
        return self.folder / "state"

    @property
    def hubble_socket(self) -> Path:
        """Where its flows are served."""
        return self.run_dir / "hubble" / "hubble.sock"

    @property
    def bpf_mount(self) -> Path:
        """Where its bpffs is mounted."""
        return self.folder / "bpf"

    @property
    def conf_dir(self) -> Path:
        """Its CNI configurations."""
        return self.folder / "cni" / "net.d"

    @property
    def bin_dir(self) -> Path:
        """Its CNI binaries."""
        return self.folder / "cni" / "bin"

    @property
    def logs(self) -> Path:
        """Logs of its processes."""
        return self.folder / "logs"

    def pod_log(self, namespace: str, name: str) -> Path:
        """What the command of a pod says."""
        return self.logs / "pods" / f"{namespace}_{name}.log"

    @property
    def namespace(self) -> str:
        """The name of its network namespace."""
        return f"{self.lab.prefix}{self.name}"

    @property
    def cgroup(self) -> Path:
        """Holds its processes and its pods."""
        return self.lab.cgroup / self.name

    def socket(self, process: str) -> Path:
        """The API of one of its processes: agent, kubelet, hubble."""
        return self.run_dir / f"{process}.sock"
