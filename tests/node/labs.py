"""A lab as tests use it: the commands that users have, and probes inside its pods.

def test_something(lab: Lab) -> None:
    server = lab.run("server", *echo("8080/tcp"), ports=["8080/tcp"], labels=["app=server"])
    client = lab.run("client", "sleep", "inf")
    assert client.reaches(server, 8080)
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from ciliate_lab import cgroups, namespaces
from ciliate_lab.place import LabPlace
from ciliate_lab.pods import pod_object, remove_pod, run_pod
from ciliate_lab.report import lab_status
from ciliate_lab.teardown import leftovers

BIN = Path(sys.executable).parent
DENIED_AFTER = 0.5
"""Seconds without an answer after which a probe counts as denied: a path on one machine answers in a millisecond."""
T = TypeVar("T")


def until(condition: Callable[[], T], timeout: float = 10.0, what: str = "the condition") -> T:
    """The first true value of a condition. AssertionError when the time is over."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout:g} s"
        time.sleep(0.02)


def echo(*ports: str) -> tuple[str, ...]:
    """The command of a pod that answers on ports given as 8080/tcp or 9000/udp, in both families."""
    return ("/usr/bin/python3", "-S", str(Path(__file__).with_name("echo.py")), *ports)


@dataclass(frozen=True)
class Place:
    """A network namespace to probe from."""

    netns: str

    def inside(self, function: Callable[[], T]) -> T:
        """The result of a function that runs in this network namespace."""
        return namespaces.inside(self.netns, function)

    def connects(self, address: str, port: int, protocol: str = "tcp", timeout: float = DENIED_AFTER) -> bool:
        """Whether an echo server at an address answers."""
        return self.inside(lambda: _answers(address, port, protocol, timeout))

    def pings(self, address: str, timeout: float = DENIED_AFTER) -> bool:
        """Whether an address answers an ICMP echo request."""
        command = ["nsenter", f"--net={namespaces.path(self.netns)}", "ping", "-n", "-c1", f"-W{timeout}", address]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class Pod(Place):
    """A running pod."""

    name: str
    namespace: str
    node: str
    ipv4: str
    ipv6: str
    pid: int

    @property
    def addresses(self) -> tuple[str, str]:
        """Both families."""
        return self.ipv4, self.ipv6

    def reaches(self, other: Pod, port: int, protocol: str = "tcp", timeout: float = DENIED_AFTER) -> bool:
        """Whether another pod's port answers; AssertionError if the families disagree."""
        with ThreadPoolExecutor(2) as families:
            answers = families.map(lambda address: self.connects(address, port, protocol, timeout), other.addresses)
            found = dict(zip(other.addresses, answers, strict=True))
        assert len(set(found.values())) == 1, f"{self.name} to {other.name}:{port}/{protocol}: {found}"
        return all(found.values())


def _answers(address: str, port: int, protocol: str, timeout: float) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as probe:
        probe.settimeout(timeout)
        try:
            probe.connect((address, port))
            probe.sendall(b"ping")
            return probe.recv(16) == b"ping"
        except OSError:
            return False


@dataclass(frozen=True)
class Lab:
    """One lab, by its name."""

    name: str

    @property
    def place(self) -> LabPlace:
        """Its files and names."""
        return LabPlace(self.name)

    def ciliate(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command of `ciliate`, about this lab. CalledProcessError, with what it said, unless check=False."""
        return self._command("ciliate", *words, **options)

    def dbg(self, *words: str, **options: Any) -> Any:
        """What a command of `ciliate-dbg` says as JSON."""
        return json.loads(self._command("ciliate-dbg", *words, "-o", "json", **options).stdout)

    def up(self, *words: str) -> None:
        """`ciliate lab up`."""
        self.ciliate("lab", "up", *words, timeout=120)

    def down(self) -> None:
        """`ciliate lab down`."""
        self.ciliate("lab", "down")

    def status(self) -> dict[str, Any]:
        """What `ciliate lab status -o json` prints."""
        return lab_status(self.place)

    def process(self, name: str, node: str = "node1") -> dict[str, Any]:
        """One process of the lab."""
        return next(p for p in self.status()["processes"] if p["name"] == name and p["node"] in (node, ""))

    def signal(self, name: str, number: signal.Signals, node: str = "node1") -> int:
        """Send a signal to a process of a node or of the cluster, or to the supervisor; its pid."""
        status = self.status()
        pid: int = status["supervisor"]["pid"] if name == "supervisor" else self.process(name, node)["pid"]
        assert pid > 0, f"{name} does not run: {status['reasons']}"  # a signal to 0 would be one to ourselves
        os.kill(pid, number)
        return pid

    def run(
        self,
        name: str,
        *command: str,
        namespace: str = "default",
        labels: list[str] | None = None,
        ports: list[str] | None = None,
        **options: str,
    ) -> Pod:
        """What `ciliate lab run` does, without a process of its own; options: node, service_account."""
        wanted = pod_object(name, namespace, list(command), labels=labels or (), ports=ports or (), **options)
        asyncio.run(run_pod(self.place, wanted, timeout=30.0))
        return self.pod(name, namespace)

    def pod(self, name: str, namespace: str = "default") -> Pod:
        """A pod that there is."""
        for pod in self.status()["pods"]:
            if (pod["namespace"], pod["name"]) == (namespace, name):
                netns = Path(pod["netns_path"]).name
                return Pod(netns, name, namespace, pod["node"], *_families(pod["ips"]), pid=pod["pid"])
        raise LookupError(f"lab {self.name} has no pod {namespace}/{name}")

    def exec(self, name: str, *command: str, namespace: str = "default") -> subprocess.CompletedProcess[str]:
        """`ciliate lab exec`, whatever its status."""
        return self.ciliate("lab", "exec", "-n", namespace, name, "--", *command, check=False)

    def remove(self, *names: str, namespace: str = "default") -> None:
        """What `ciliate lab rm` does."""

        async def remove() -> None:
            await asyncio.gather(*(remove_pod(self.place, name, namespace, 30.0) for name in names))

        asyncio.run(remove())

    def apply(self, *objects: dict[str, Any]) -> None:
        """`ciliate apply --wait`: returns when the objects are enforced on every node."""
        self.ciliate("apply", "-f", "-", "--wait", input=yaml.safe_dump_all(objects))

    def delete(self, *objects: dict[str, Any]) -> None:
        """`ciliate delete`."""
        self.ciliate("delete", "-f", "-", input=yaml.safe_dump_all(objects))

    @contextmanager
    def applied(self, *objects: dict[str, Any]) -> Iterator[None]:
        """Objects for the time of a block."""
        self.apply(*objects)
        try:
            yield
        finally:
            self.delete(*objects)

    @property
    def outside(self) -> Place:
        """The namespace that stands for the world."""
        return Place(self.place.outside)

    def host(self, node: int = 1) -> Place:
        """A node's own namespace."""
        return Place(self.place.node(node).namespace)

    def left(self) -> list[str]:
        """What there is of the lab on this machine."""
        return leftovers(self.place)

    def _command(self, program: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        check = options.pop("check", True)
        options = {"text": True, "capture_output": True, "timeout": 60, **options}
        environment = {**os.environ, "CILIATE_LAB": self.name}
        done = subprocess.run([str(BIN / program), *words], env=environment, check=False, **options)
        assert not check or done.returncode == 0, f"{program} {' '.join(words)}: {done.stdout}{done.stderr}"
        return done


def _families(addresses: list[str]) -> tuple[str, str]:
    return next(a for a in addresses if ":" not in a), next(a for a in addresses if ":" in a)


def reason_not_to_run() -> str:
    """Why this machine can't run a lab; empty if it can."""
    if os.geteuid() != 0:
        return "a lab needs root"
    if "bpf" not in Path("/proc/filesystems").read_text().split():
        return "this kernel has no bpffs"
    try:
        cgroups.root()
    except cgroups.CgroupError as error:
        return str(error)
    return ""
