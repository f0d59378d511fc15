"""An agent of one node of a large cluster: a real API server, everything else is objects."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ciliate.api.client import Client
from ciliate.api.routes import ApiError
from ciliate.kernel import bpffs
from ciliate.model.kinds import KINDS
from ciliate_kubernetes.crds.definition import definition_object
from ciliate_kubernetes.crds.kinds import DEFINITIONS

from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.filling import fill
from tests.kubernetes.network import Network
from tests.kubernetes.population import Population, node_name, pod_name
from tests.kubernetes.store.crds import is_established
from tests.unit.cni import shim

ROOT = Path(__file__).parents[2]
_USED = frozenset(kind.plural for kind in KINDS if kind.api_version.startswith("cilium.io/"))
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Attached:
    """A pod of the node: a network namespace."""

    netns: str
    ipv4: str = ""
    ipv6: str = ""


class LargeCluster:
    """A control plane with a population, and node 0 of it, whose agent the test starts."""

    def __init__(self, population: Population, etcd: str = "etcd") -> None:
        self.population = population
        self.folder = Path(tempfile.mkdtemp(prefix="ciliate-large-"))
        self.log = self.folder / "agent.log"
        self._bpf = self.folder / "bpf"
        self._network = Network(f"lc{os.getpid()}-{uuid.uuid4().hex[:4]}")
        self.pods: dict[int, Attached] = {}  # by their number in the population
        self._agent: subprocess.Popen[bytes] | None = None
        self._etcd = etcd

    def start(self) -> None:
        """Start the control plane and fill it."""
        shim.build()
        bpffs.mount(self._bpf)
        self._network.start()
        control = self._network.host("control", 1)
        self._node = self._network.host("node", 11)
        self.plane = ControlPlane(control.ipv4, control.enter, folder=self.folder / "control", etcd=self._etcd)
        self.plane.start()
        self.plane.kubectl.apply(*(definition_object(one) for one in DEFINITIONS if one.plural in _USED))
        for plural in _USED:
            self.plane.kubectl.wait(plural, "crd", f"{plural}.cilium.io", condition=is_established)
        fill(self.plane, self.population.objects())

    def start_agent(self, ready: bool = True) -> float:
        """Start the agent; seconds until it says that it is ready, if that is waited for."""
        config = self.folder / "ciliate.yaml"
        config.write_text(yaml.safe_dump(self._settings()))
        command = [*self._node.enter, str(Path(sys.executable).parent / "ciliate"), "agent", "--config", str(config)]
        began = time.monotonic()
        with self.log.open("ab") as log:
            self._agent = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        while ready and not self.is_ready():
            assert self._agent.poll() is None and time.monotonic() - began < 120, self.log.read_text()[-4000:]
            time.sleep(0.02)
        return time.monotonic() - began

    def stop_agent(self) -> None:
        """End the agent."""
        if self._agent is not None:
            self._agent.terminate()
            self._agent.wait(30)
            self._agent = None

    def add_pods(self) -> None:
        """Attach this node's pods, as its runtime would."""
        for number in range(0, self.population.pods, self.population.nodes):
            netns = f"{self._network.name}-{number}"
            subprocess.run(["ip", "netns", "add", netns], check=True)
            self.pods[number] = Attached(netns)
            place = self.population.place(number)
            outcome = shim.call(
                "ADD",
                shim.conf(self.folder / "run" / "cni.sock"),
                containerid=uuid.uuid4().hex,
                ifname="eth0",
                netns=f"/run/netns/{netns}",
                args=f"K8S_POD_NAMESPACE={place.namespace};K8S_POD_NAME={pod_name(number)}",
            )
            assert outcome.status == 0, outcome.output
            self.pods[number] = Attached(netns, *(ip["address"].partition("/")[0] for ip in outcome.json["ips"]))

    @property
    def pid(self) -> int:
        """Of the agent."""
        assert self._agent is not None
        return self._agent.pid

    def api(self, path: str) -> Any:
        """GET from the agent."""
        with Client(self.socket) as client:
            return client.get(path)

    def seconds(self) -> float:
        """Processor time that the agent has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def lag(self) -> dict[float, float]:
        """How often the loop was late by at most so many seconds."""
        prefix = 'ciliate_loop_lag_seconds_bucket{le="'
        lines = [line for line in self.api("/metrics").splitlines() if line.startswith(prefix)]
        return {float(line[len(prefix) :].partition('"')[0]): float(line.rpartition(" ")[2]) for line in lines}

    @property
    def socket(self) -> Path:
        """Of the agent's API."""
        return self.folder / "run" / "agent.sock"

    def run_inside(self, module: str, *words: str) -> str:
        """What a module of the tests prints, run where the API server can be reached."""
        command = [*self._node.enter, sys.executable, "-m", module, str(self.plane.kubeconfig), *words]
        niced = ["nice", "-n", "5", *command]
        return subprocess.run(niced, check=True, cwd=ROOT, timeout=300, stdout=subprocess.PIPE, text=True).stdout

    def until(self, what: str, condition: Callable[[], object], limit: float = 60.0) -> float:
        """Wait for a condition; how many seconds that took."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < limit, f"{what}: not within {limit:g} s"
            time.sleep(0.02)
        return time.monotonic() - began

    def close(self) -> None:
        """Leave nothing behind."""
        self.stop_agent()
        if hasattr(self, "plane"):
            self.plane.close()
        for pod in self.pods.values():
            subprocess.run(["ip", "netns", "delete", pod.netns], check=False)
        self._network.close()
        bpffs.unmount(self._bpf)
        subprocess.run(["rm", "-rf", str(self.folder)], check=False)

    def is_ready(self) -> bool:
        """Whether the agent says so."""
        try:
            return bool(self.api("/status")["ready"])
        except (ApiError, OSError):
            return False

    def _settings(self) -> dict[str, Any]:
        return {
            "plugins": ["cni", "ipam", "policy", "kubernetes", "crds"],
            "node": {
                "name": node_name(0),
                "run_dir": str(self.folder / "run"),
                "state_dir": str(self.folder / "state"),
                "bpffs": str(self._bpf / "ciliate"),
            },
            "store": {"driver": "kubernetes", "kubeconfig": str(self.plane.kubeconfig)},
            "ipam": {
                "mode": "cluster-pool",
                "cluster_pool_assigned_by": "operator",
                "cluster_pool_ipv4_cidr": "10.128.0.0/10",
                "cluster_pool_ipv6_cidr": "fd01::/48",
                "cluster_pool_ipv6_mask_size": 64,
            },
            "cni": {"conf_dir": str(self.folder / "net.d"), "bin_dir": str(self.folder / "bin")},
        }


def memory(pid: int) -> dict[str, float]:
    """Megabytes of a process: resident, proportional, and the kernel's maps that are mapped into it."""
    found = {"rss": 0.0, "pss": 0.0, "maps": 0.0}
    name = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            name = words[5] if len(words) > 5 else ""
        elif words[0] in ("Rss:", "Pss:"):
            size = int(words[1]) / 1000
            found[words[0][:-1].lower()] += size
            if words[0] == "Rss:" and "bpf-map" in name:
                found["maps"] += size
    return found
