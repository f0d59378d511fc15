"""A node of a test's own: a network namespace with an agent in it, and pods attached by the real shim."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from ciliate.api.client import Client
from ciliate.api.routes import ApiError
from ciliate.kernel import bpffs

from tests.unit.cni import shim

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
LIMIT = 30.0
PREFIX = "cnit"


def run(*command: str | Path, check: bool = True, limit: float = LIMIT) -> str:
    """A command's output. A failure shows what it said."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, timeout=limit)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def wait_for(what: str, condition: Callable[[], T], limit: float = LIMIT) -> T:
    """Wait until a condition gives something true; what it gave."""
    deadline = time.monotonic() + limit
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit:g} s: {what}")
        time.sleep(0.03)
    return found


@dataclass
class Pod:
    """A network namespace that a test calls a container."""

    name: str
    container_id: str
    result: Any = None

    @property
    def netns(self) -> str:
        return f"/run/netns/{self.name}"

    @property
    def addresses(self) -> list[str]:
        return [ip["address"].partition("/")[0] for ip in self.result["ips"]]

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command in the pod."""
        return run("ip", "netns", "exec", self.name, *command, check=check)


@dataclass
class Node:
    """Folders, namespace and agent."""

    octet: int = 100
    settings: dict[str, Any] = field(default_factory=dict)
    network: str = "ciliate"
    policy: str = "allow-all"  # or "real": the plugin policy; or "none"
    before: tuple[str, ...] = ()  # a command that runs the agent's command
    words: list[str] = field(default_factory=list)  # for tests.node.cni_agent

    def __post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-"))
        self.name = f"{PREFIX}-{self.folder.name[-8:]}".replace("_", "x")
        self.run_dir = self.folder / "run"
        self.bpf = self.folder / "bpf"
        self.pods: list[Pod] = []
        self.agent: subprocess.Popen[bytes] | None = None
        self.log = self.folder / "agent.log"
        shim.build()
        bpffs.mount(self.bpf)
        run("ip", "netns", "add", self.name)
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        self.config = self.folder / "ciliate.yaml"
        self.write_settings()

    def write_settings(self) -> None:
        """What the agent reads at its next start."""
        self.config.write_text(yaml.safe_dump(self._settings()))

    def _settings(self) -> dict[str, Any]:
        tree: dict[str, Any] = {
            "plugins": ["cni", "ipam", *(["policy"] if self.policy == "real" else [])],
            "cluster": {"name": "test"},
            "node": {
                "name": "node1",
                "run_dir": str(self.run_dir),
                "state_dir": str(self.folder / "state"),
                "bpffs": str(self.bpf / "ciliate"),
            },
            "store": {"driver": "local", "path": str(self.folder / "store.sqlite")},
            "ipam": {
                "mode": "host-scope",
                "host_scope_ipv4_cidr": f"10.{self.octet}.0.0/20",
                "host_scope_ipv6_cidr": f"fd00:{self.octet:x}::/112",
            },
            "cni": {
                "conf_dir": str(self.folder / "net.d"),
                "bin_dir": str(self.folder / "bin"),
                "pod_timeout": 0.2,
            },
        }
        for section, values in self.settings.items():
            tree.setdefault(section, {}).update(values)
        return tree

    @property
    def socket(self) -> Path:
        return self.run_dir / "cni.sock"

    @property
    def conflist(self) -> Path:
        return self.folder / "net.d" / "05-ciliate.conflist"

    def start(self, wait: bool = True) -> None:
        """Start the agent in the node's namespace."""
        program = [sys.executable, "-m", "tests.node.cni_agent", str(self.config), *self.words]
        if self.policy != "allow-all":
            program = [str(Path(sys.executable).parent / "ciliate"), "agent", "--config", str(self.config)]
        command = ["nsenter", f"--net=/run/netns/{self.name}", *self.before, *program]
        with self.log.open("ab") as log:
            self.agent = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        if wait:
            self.await_ready()

    def await_ready(self) -> None:
        """Wait until the agent answers CNI calls and says that it is ready."""

        def ready() -> bool:
            assert self.agent is not None
            assert self.agent.poll() is None, self.log.read_text()[-4000:]
            if not (self.socket.exists() and (self.run_dir / "agent.sock").exists()):
                return False
            try:
                return bool(self.api("/status")["ready"])
            except (ApiError, OSError):
                return False

        try:
            wait_for("the agent is ready", ready)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()[-6000:]}") from error

    def api(self, path: str) -> Any:
        """GET from the agent."""
        with Client(self.run_dir / "agent.sock") as client:
            return client.get(path)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the agent."""
        if self.agent is not None:
            self.agent.send_signal(number)
            self.agent.wait(LIMIT)
            self.agent = None

    def pod(self, container_id: str | None = None) -> Pod:
        """A new namespace, not attached yet."""
        container_id = container_id or uuid.uuid4().hex
        pod = Pod(f"{self.name}-{len(self.pods)}", container_id)
        run("ip", "netns", "add", pod.name)
        self.pods.append(pod)
        return pod

    def conf(self, version: str = "1.1.0", **more: Any) -> bytes:
        """A network configuration for the shim."""
        return shim.conf(self.socket, version, **{"name": self.network, **more})

    def call(self, command: str, pod: Pod, config: bytes | None = None, /, **variables: str) -> shim.Outcome:
        """Call the shim for a pod, in the node's namespace's stead: the shim is where the runtime is."""
        named = {"containerid": pod.container_id, "ifname": "eth0", "netns": pod.netns, **variables}
        return shim.call(command, self.conf() if config is None else config, **named)

    def add(self, pod: Pod | None = None, version: str = "1.1.0", **variables: str) -> Pod:
        """ADD, which must succeed."""
        pod = pod or self.pod()
        outcome = self.call("ADD", pod, self.conf(version), **variables)
        assert outcome.status == 0, f"{outcome.output!r}\n{self.log.read_text()[-3000:]}"
        pod.result = outcome.json
        return pod

    def delete(self, pod: Pod) -> None:
        """DEL, which must succeed."""
        outcome = self.call("DEL", pod)
        assert (outcome.status, outcome.output) == (0, b"")

    def host(self, *command: str | Path, check: bool = True) -> str:
        """Run a command in the node's namespace."""
        return run("nsenter", f"--net=/run/netns/{self.name}", *command, check=check)

    def links(self) -> dict[str, Any]:
        """Pods' host ends by name."""
        found = json.loads(self.host("ip", "-j", "link", "show"))
        return {link["ifname"]: link for link in found if link["ifname"].startswith("lxc")}

    def endpoints(self) -> list[Any]:
        """The agent's endpoints, without what changes by itself: how many flows they have."""
        found: list[Any] = self.api("/endpoints")
        return [{key: value for key, value in row.items() if key not in ("flows", "flow_limit")} for row in found]

    def close(self) -> None:
        """Leave nothing behind."""
        self.kill()
        for pod in self.pods:
            run("ip", "netns", "del", pod.name, check=False)
        run("ip", "netns", "del", self.name, check=False)
        bpffs.unmount(self.bpf)
        shutil.rmtree(self.folder, ignore_errors=True)


def require_root() -> None:
    """Skip without root."""
    import pytest

    if os.geteuid() != 0:
        pytest.skip("makes network namespaces and loads programs: run as root")
