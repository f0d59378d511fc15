"""A node: kubelet and containerd in a network, mount and process namespace, so that it looks to them like a machine.

Where a real node has /run, /var/lib, /opt, /etc/cni and /sys/fs/bpf of its own, so has this one: the paths that a
DaemonSet mounts are the real ones. All of it ends with the namespace's first process.
"""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tests.kubernetes.certificates import Authority
from tests.kubernetes.daemons import Daemon, wait_for
from tests.kubernetes.images import BUSYBOX
from tests.kubernetes.network import Host, run
from tests.kubernetes.programs import kubernetes

_INIT = """
import os, time
print(os.getpid(), flush=True)
while True:
    try:
        os.wait()
    except ChildProcessError:
        time.sleep(0.05)
"""
"""The first process: it takes up orphans, as a container's shim makes them."""
_MOUNTS = """
set -e
mount --make-rshared /
mount -t bpf bpf /sys/fs/bpf
mount --bind {folder}/var-lib /var/lib
mount --bind {folder}/var-log /var/log
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock
mount -t tmpfs -o mode=755 tmpfs /opt
mkdir -p /opt/cni/bin
cp /usr/lib/cni/loopback /opt/cni/bin/
mount -t overlay overlay -o lowerdir=/etc,upperdir={folder}/etc,workdir={folder}/etc-work /etc
mkdir -p /etc/cni/net.d
mount --make-rshared /
exec {python} -c '{init}'
"""
_CONTAINERD = """
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"""
_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "unified", "")


class Node:
    """One node. `start` returns once its kubelet has made the Node object; images may be imported before."""

    def __init__(self, name: str, host: Host, folder: Path, authority: Authority, server: str) -> None:
        self.name = name
        self.host = host
        self.folder = folder / name
        self._cgroup = host.netns
        for part in ("var-lib", "var-log", "etc", "etc-work"):
            (self.folder / part).mkdir(parents=True)
        script = _MOUNTS.format(folder=self.folder, init=_INIT, python="/usr/bin/python3")
        enter = [*host.enter, "unshare", "--mount", "--propagation=private", "--pid", "--fork", "--mount-proc"]
        self._init = Daemon("init", [*enter, "--kill-child", "sh", "-c", script], self.folder)
        self._init.start()
        self._init.await_ready(lambda: self._first_process() is not None)
        # All that is started in here is in its process namespace too.
        self.enter = ["nsenter", f"--target={self._first_process()}", "--net", "--mount", "--pid"]
        self.containerd = Daemon("containerd", self._containerd_command(), self.folder)
        self.kubelet = Daemon("kubelet", self._kubelet_command(authority, server), self.folder)

    def start_containerd(self) -> None:
        """Start the runtime."""
        self.containerd.start()
        self.containerd.await_ready(lambda: self.try_run("ctr", "version").returncode == 0)

    def import_image(self, archive: Path) -> None:
        """Take an OCI archive in."""
        self.run("ctr", "-n", "k8s.io", "images", "import", "--all-platforms", str(archive))

    def start(self) -> None:
        """Start the kubelet."""
        self.kubelet.start()

    def run(self, *command: str) -> str:
        """A command on the node."""
        return run(*self.enter, *command)

    def try_run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command on the node, however it ends."""
        return subprocess.run([*self.enter, *command], capture_output=True, text=True, check=False)

    def files(self, *folders: str) -> dict[str, str]:
        """Paths below folders of the node, and what each is."""
        found = self.try_run("find", *folders, "-printf", "%p\\t%y\\n").stdout
        return dict(line.split("\t") for line in found.splitlines())

    def kill_process(self, number: signal.Signals, process: int) -> None:
        """Send a signal to a process of the node, by its id there."""
        self.run("kill", f"-{int(number)}", str(process))

    def close(self) -> None:
        """End everything that runs on the node, and remove what it has made."""
        for daemon in (self.kubelet, self.containerd):
            daemon.stop(signal.SIGKILL)
        self._init.stop(signal.SIGKILL)  # and with its child all processes of the namespace
        for controller in _CONTROLLERS:
            _remove_groups(Path("/sys/fs/cgroup") / controller / self._cgroup)

    def _first_process(self) -> int | None:
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()
        return int(children[0]) if children and self._init.log.read_text().strip() else None

    def _containerd_command(self) -> list[str]:
        config = self.folder / "containerd.toml"
        config.write_text(_CONTAINERD.format(pause=BUSYBOX))
        return [*self.enter, "containerd", "--config", str(config)]

    def _kubelet_command(self, authority: Authority, server: str) -> list[str]:
        config = self.folder / "kubelet.json"
        config.write_text(json.dumps(self._kubelet_config(authority)))
        kubeconfig = authority.kubeconfig(server, f"system:node:{self.name}", ["system:nodes"])
        return [
            *self.enter, str(kubernetes("kubelet")),
            f"--config={config}", f"--kubeconfig={kubeconfig}", f"--hostname-override={self.name}",
            f"--node-ip={self.host.ipv4},{self.host.ipv6}", "--root-dir=/var/lib/kubelet",
            "--cert-dir=/var/lib/kubelet/pki", "--v=1",
        ]  # fmt: skip

    def _kubelet_config(self, authority: Authority) -> dict[str, Any]:
        disk = {"memory.available": "20Mi", "nodefs.available": "1%", "imagefs.available": "1%"}
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"x509": {"clientCAFile": str(authority.file)}, "webhook": {"enabled": True}},
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._cgroup}",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "evictionHard": {**disk, "nodefs.inodesFree": "1%", "imagefs.inodesFree": "1%"},
            "registerWithTaints": [{"key": "node.cilium.io/agent-not-ready", "value": "true", "effect": "NoExecute"}],
            "resolvConf": "",
            "syncFrequency": "5s",
            "nodeStatusUpdateFrequency": "2s",
            "fileCheckFrequency": "10s",
            "imageMinimumGCAge": "1h",
            "imageGCHighThresholdPercent": 100,
            "registryPullQPS": 0,
            "kubeAPIQPS": 100,
            "kubeAPIBurst": 200,
            "shutdownGracePeriod": "0s",
        }


def _remove_groups(group: Path) -> None:
    """Remove a control group with those below it, once their processes are gone."""
    if not group.is_dir():
        return
    for folder in [*sorted((p for p in group.rglob("*") if p.is_dir()), reverse=True), group]:
        with suppress(AssertionError):
            wait_for(f"{folder} is empty", partial(_removed, folder), limit=5)


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
