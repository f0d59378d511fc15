"""A cluster with Ciliate in it, as users have it: installed by `ciliate install`, seen by kubectl and `ciliate`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kubernetes.ciliate_image import write_ciliate
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.daemons import wait_for
from tests.kubernetes.images import BUSYBOX
from tests.kubernetes.kubectl import Kubectl
from tests.kubernetes.node import Node

_PROGRAMS = Path(sys.executable).parent
SYSTEM = "kube-system"
_FOLDERS = ("/etc/cni", "/opt/cni", "/run/ciliate", "/var/lib/ciliate", "/sys/fs/bpf")
_SETTINGS = (
    "policy.identity_gc_interval=1", "policy.identity_heartbeat_timeout=5", "cni.endpoint_gc_interval=1",
    "ipam.nodes_gc_interval=1",
)  # fmt: skip
"""So that what takes an operator a quarter of an hour can be seen."""
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


def traces(node: Node) -> dict[str, Any]:
    """What Ciliate could leave on a node."""
    there = [folder for folder in _FOLDERS if node.try_run("test", "-e", folder).returncode == 0]
    groups = node.run("find", "/sys/fs/cgroup", "-name", "ciliate").splitlines()
    return {
        "links": sorted(link["ifname"] for link in json.loads(node.run("ip", "-j", "link"))),
        "routes": sorted(node.run("ip", "route").splitlines() + node.run("ip", "-6", "route").splitlines()),
        "rules": node.run("ip", "rule") + node.run("ip", "-6", "rule"),
        "files": node.files(*there),
        "control groups": [group for group in groups if node.host.netns in group],
    }


class Installation:
    """The cluster, its programs, and pods that tests make."""

    def __init__(self, nodes: int = 2) -> None:
        self.cluster = Cluster(nodes, archives=[lambda: write_ciliate(self.cluster.folder)])
        self.bare: dict[str, dict[str, Any]] = {}  # what `traces` said of each node before anything was installed

    @property
    def kubectl(self) -> Kubectl:
        """kubectl as the cluster's administrator."""
        return self.cluster.kubectl

    def start(self) -> None:
        """Start the cluster and install Ciliate; returns when `ciliate install --wait` does."""
        policy = self.cluster.folder / "audit.json"
        policy.write_text(json.dumps(_AUDIT))
        self.cluster.flags += [f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"]
        self.cluster.start()
        self.bare = {node.name: traces(node) for node in self.cluster.nodes}
        self.install()

    def install(self) -> None:
        """`ciliate install --wait`."""
        settings = [word for setting in _SETTINGS for word in ("--set", setting)]
        self.ciliate("install", "--image-pull-policy", "Never", "--wait", "--timeout", "90", *settings)

    @property
    def audit_log(self) -> Path:
        """What the API server was asked."""
        return self.cluster.folder / "audit.log"

    def ciliate(self, *words: str, check: bool = True, limit: float = 120) -> subprocess.CompletedProcess[str]:
        """A `ciliate` command on the control plane's machine."""
        return self._run("ciliate", words, check, limit)

    def dbg(self, *words: str) -> str:
        """What a `ciliate-dbg` command prints there."""
        return self._run("ciliate-dbg", words, True, 60).stdout

    def agent(self, node: Node) -> str:
        """The name of the agent's pod on a node."""
        pods = self.kubectl.items("get", "pods", "-n", SYSTEM, "-l", "app.kubernetes.io/name=ciliate-agent")
        (name,) = [
            pod["metadata"]["name"]
            for pod in pods
            if pod["spec"]["nodeName"] == node.name and not pod["metadata"].get("deletionTimestamp")
        ]
        return str(name)

    def audited(self) -> Iterator[dict[str, Any]]:
        """Requests that the API server has answered, or of watches begun to."""
        with self.audit_log.open() as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)

    @contextmanager
    def pods(self, *pods: Mapping[str, Any]) -> Iterator[dict[str, list[str]]]:
        """Pods that are Ready, by name their addresses; deleted afterwards."""
        names = [pod["metadata"]["name"] for pod in pods]
        self.kubectl.apply(*pods)
        try:
            yield self.await_ready(*names, namespace=pods[0]["metadata"]["namespace"])
        finally:
            self.kubectl.delete(*pods)

    def await_ready(self, *names: str, namespace: str = "default") -> dict[str, list[str]]:
        """Wait until pods are Ready; their addresses by name."""

        def ready(found: Any) -> bool:
            conditions = {c["type"]: c["status"] for c in found["status"].get("conditions", ())}
            return conditions.get("Ready") == "True"

        pods = {name: self.kubectl.wait(name, "pod", name, "-n", namespace, condition=ready) for name in names}
        return {name: [entry["ip"] for entry in pod["status"]["podIPs"]] for name, pod in pods.items()}

    def connects(self, pod: str, address: str, port: int = 80, namespace: str = "default") -> bool:
        """Whether a pod's container gets an answer from a port of an address."""
        words = ("sh", "-c", f"echo GET /hosts | nc -w 1 {address} {port}")
        done = self.kubectl.run("exec", "-n", namespace, pod, "--", *words)
        return done.returncode == 0 and "HTTP" in done.stdout

    def await_connects(self, pod: str, address: str, wanted: bool = True, port: int = 80) -> None:
        """Wait until a pod gets an answer, or none any more."""
        what = f"{pod} {'reaches' if wanted else 'does not reach'} {address}"
        wait_for(what, lambda: self.connects(pod, address, port) is wanted, limit=15)

    def _run(self, program: str, words: tuple[str, ...], check: bool, limit: float) -> subprocess.CompletedProcess[str]:
        plane = self.cluster.control_plane
        environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig)}
        command = [*plane.enter, str(_PROGRAMS / program), *words]
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=limit,
            stdin=subprocess.DEVNULL,
        )
        said = f"{program} {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert not check or done.returncode == 0, said
        return done


def pod(
    name: str, *command: str, namespace: str = "default", labels: Mapping[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    """A pod of busybox; without a command it waits."""
    container: dict[str, Any] = {"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never"}
    container["command"] = list(command) or ["/bin/sleep", "2147483647"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name, **(labels or {})}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, "dnsPolicy": "Default", **spec},
    }


def web(name: str, port: int = 80, **more: Any) -> dict[str, Any]:
    """A pod that serves HTTP."""
    return pod(name, "/bin/busybox", "httpd", "-f", "-p", str(port), "-h", "/etc", **more)
