"""A whole cluster: control plane, controllers, scheduler and nodes, each a machine of its own on one wire."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from operator import methodcaller
from pathlib import Path

from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.daemons import Daemon
from tests.kubernetes.images import write_busybox
from tests.kubernetes.kubectl import Kubectl
from tests.kubernetes.network import Network, run
from tests.kubernetes.node import Node
from tests.kubernetes.programs import kubernetes

_numbers = count(1)
_KUBELETS_SYSCTLS = (
    "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)  # fmt: skip
"""Settings of the whole machine that a kubelet sets."""


class Cluster:
    """One control plane and some nodes, without a network plugin. `close` removes whatever has been made."""

    def __init__(self, nodes: int = 1, flags: Sequence[str] = (), archives: Sequence[Callable[[], Path]] = ()) -> None:
        """flags: of the API server; archives: makers of images that every node is to have."""
        self.folder = Path(tempfile.mkdtemp(prefix="ciliate-cluster-"))
        self.nodes: list[Node] = []
        self.flags = list(flags)
        self._count = nodes
        self._archives = [lambda: write_busybox(self.folder), *archives]
        self._sysctls = {name: Path("/proc/sys", name).read_text() for name in _KUBELETS_SYSCTLS}
        self._network = Network(f"ck{os.getpid()}-{next(_numbers)}")
        self._daemons: list[Daemon] = []
        self._plane: ControlPlane | None = None

    @property
    def control_plane(self) -> ControlPlane:
        """etcd and the API server, from `start` on."""
        assert self._plane is not None, "the cluster was not started"
        return self._plane

    @property
    def kubectl(self) -> Kubectl:
        """kubectl as the cluster's administrator."""
        return self.control_plane.kubectl

    def start(self) -> None:
        """Start everything; returns when all nodes are there and have their images."""
        self._network.start()
        control = self._network.host("control", 1)
        self._plane = ControlPlane(control.ipv4, control.enter, self.flags, self.folder / "control")
        for number in range(1, self._count + 1):
            host = self._network.host(f"node{number}", 10 + number)
            host.route_services(control.ipv4)
            self.nodes.append(Node(f"node{number}", host, self.folder, self._plane.authority, self._plane.url))
        for node in self.nodes:
            node.start_containerd()
        with ThreadPoolExecutor() as pool:
            imported = pool.submit(self._import_images)
            self._plane.start()
            self._start_controllers()
            imported.result()
        for node in self.nodes:
            node.start()
        self.kubectl.wait("nodes", "nodes", condition=lambda found: len(found["items"]) == len(self.nodes))
        self.kubectl.wait("account", "serviceaccount", "default", condition=bool)

    def close(self) -> None:
        """End all, and remove what was made."""
        for node in self.nodes:
            node.close()
        for daemon in self._daemons:
            daemon.stop(signal.SIGKILL)
        if self._plane is not None:
            self._plane.close()
        self._network.close()
        for name, value in self._sysctls.items():
            Path("/proc/sys", name).write_text(value)
        shutil.rmtree(self.folder, ignore_errors=True)

    def left(self) -> list[str]:
        """What is still there of a cluster that was closed: processes, namespaces, control groups, mounts, files."""
        name = self._network.name
        found = [line for line in run("ip", "netns", "list").splitlines() if line.startswith(f"{name}-")]
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{name}-*")]
        found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(self.folder) in line]
        commands = ((path.parent.name, read_command(path)) for path in Path("/proc").glob("[0-9]*/cmdline"))
        found += [f"process {pid}: {words}" for pid, words in commands if str(self.folder) in words]
        return found + ([str(self.folder)] if self.folder.exists() else [])

    def node_of(self, pod: str, namespace: str = "default") -> Node:
        """The node that a pod runs on."""
        name = self.kubectl.json("get", "pod", pod, "-n", namespace)["spec"]["nodeName"]
        return next(node for node in self.nodes if node.name == name)

    def _import_images(self) -> None:
        with ThreadPoolExecutor() as pool:
            for make in self._archives:
                archive = make()
                list(pool.map(methodcaller("import_image", archive), self.nodes))
                archive.unlink()

    def _start_controllers(self) -> None:
        plane = self.control_plane
        for name, flags in {"kube-controller-manager": self._controller_flags(), "kube-scheduler": []}.items():
            kubeconfig = plane.authority.kubeconfig(plane.url, f"system:{name}")
            words = [*plane.enter, str(kubernetes(name)), f"--kubeconfig={kubeconfig}", "--leader-elect=false", *flags]
            daemon = Daemon(name, words, plane.folder)
            daemon.start()
            self._daemons.append(daemon)

    def _controller_flags(self) -> list[str]:
        authority = self.control_plane.authority
        return [
            "--use-service-account-credentials=true", f"--root-ca-file={authority.file}",
            f"--service-account-private-key-file={authority.service_accounts.key}",
            "--node-monitor-period=1s", "--allocate-node-cidrs=false", "--kube-api-qps=200", "--kube-api-burst=400",
        ]  # fmt: skip


def read_command(path: Path) -> str:
    """A process's command line, if it is still there."""
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
