"""Traffic for fault tests: every packet and connection is recorded, with CLOCK_MONOTONIC times that all share.

    with Traffic(folder) as traffic:
        traffic.serve([pod_b], family=4, ports=4)
        traffic.send(pod_a, "10.0.0.2", ports=4, flows=8, rate=5000)
        traffic.connect(pod_a, ["10.0.0.2"], ports=2, rate=100)
        ...                                   # break something
        records = traffic.stop()              # senders first, then servers, which empty their queues
    account(records.sent, records.received)   # tests.node.accounting

Pods are given as paths of network namespaces. Senders and servers are processes (traffic.c) that enter them by
themselves. A flow is (sender, flow): sender is the order of `send` calls, flow f goes to port `port + f % ports`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tests.bench import build
from tests.node.accounting import CONNECTION, PACKET

PORT = 7100
LIMIT_SECONDS = 600
ENDING_SECONDS = 30

Records = npt.NDArray[np.void]


class TrafficError(Exception):
    """A program of the traffic ended badly or lost packets itself: nothing can be said about the path."""


@dataclass(frozen=True)
class Recorded:
    """What was recorded, in accounting's dtypes, one array for all processes of a kind."""

    sent: Records
    received: Records  # by servers
    echoed: Records  # what servers with echo=True sent back, as it reached its sender
    connections: Records


@dataclass
class _Process:
    role: str
    popen: subprocess.Popen[str]
    outputs: dict[str, Path] = field(default_factory=dict)

    def end(self, at_once: bool) -> None:
        """Let it finish, by SIGTERM or by itself; TrafficError if it failed or its own queue overflowed."""
        if at_once:
            self.popen.terminate()
        said, wrong = self.popen.communicate(timeout=ENDING_SECONDS if at_once else LIMIT_SECONDS)
        if self.popen.returncode:
            raise TrafficError(f"traffic {self.role} ended with {self.popen.returncode}: {wrong.strip()}")
        told: dict[str, int] = msgspec.json.decode(said.splitlines()[-1])
        if told["overflowed"]:
            raise TrafficError(
                f"{told['overflowed']} packets were delivered but found the server's own queue full: "
                "send fewer a second"
            )


class Traffic:
    """Processes that send and record. `folder`: where records go, 24 bytes each; empty or new."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[_Process] = []
        self._program = str(build.program(Path(__file__).with_name("traffic.c")))
        self._senders = 0

    def serve(
        self, spaces: Sequence[Path], family: int, port: int = PORT, ports: int = 1, echo: bool = False,
        cpu: int | None = None,
    ) -> None:  # fmt: skip
        """Record UDP and answer TCP on ports of every namespace given; returns when all of them listen."""
        command = ["serve", "-f", str(family), "-p", str(port), "-P", str(ports), *(["-e"] if echo else [])]
        for space in spaces:
            command += ["-n", str(space)]
        process = self._start("serve", command, cpu, received="-o")
        assert process.popen.stdout is not None
        if process.popen.stdout.readline() != "ready\n":
            raise TrafficError(f"traffic serve: {process.popen.communicate(timeout=ENDING_SECONDS)[1].strip()}")

    def send(
        self, space: Path, address: str, port: int = PORT, ports: int = 1, flows: int = 1, rate: float = 1000,
        cpu: int | None = None, echoes: bool = False, seconds: float = LIMIT_SECONDS,
    ) -> int:  # fmt: skip
        """Send UDP until `stop` or for `seconds`: `rate` packets a second in all. The sender's number."""
        command = ["send", "-d", address, "-p", str(port), "-P", str(ports), "-F", str(flows), "-r", str(rate)]
        command += ["-i", str(self._senders), "-n", str(space), "-t", str(seconds)]
        outputs = {"sent": "-o"} | ({"echoed": "-O"} if echoes else {})
        self._start("send", command, cpu, **outputs)
        self._senders += 1
        return self._senders - 1

    def connect(
        self, space: Path, addresses: Sequence[str], port: int = PORT, ports: int = 1, rate: float = 100,
        limit_ms: int = 900, cpu: int | None = None, seconds: float = LIMIT_SECONDS,
    ) -> None:  # fmt: skip
        """Open `rate` connections a second, in turn to every address and port; target t: see CONNECTION.

        A limit under a second shows even one lost SYN: it would be sent anew after that.
        """
        command = ["connect", "-p", str(port), "-P", str(ports), "-r", str(rate), "-l", str(limit_ms)]
        command += ["-n", str(space), "-t", str(seconds)]
        for address in addresses:
            command += ["-d", address]
        self._start("connect", command, cpu, connections="-o")

    def _start(self, role: str, command: list[str], cpu: int | None, **outputs: str) -> _Process:
        number = len(self._processes)
        paths = {kind: self._folder / f"{number}.{kind}" for kind in outputs}
        words = [self._program, *command, *(["-c", str(cpu)] if cpu is not None else [])]
        for kind, flag in outputs.items():
            words += [flag, str(paths[kind])]
        pipe = subprocess.PIPE
        process = _Process(role, subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True), paths)
        self._processes.append(process)
        return process

    def stop(self) -> Recorded:
        """End senders, then servers, and read what they recorded."""
        return self._finish(at_once=True)

    def wait(self) -> Recorded:
        """The same, but senders go on until their `seconds` are over."""
        return self._finish(at_once=False)

    def _finish(self, at_once: bool) -> Recorded:
        ended = sorted(self._processes, key=lambda process: process.role == "serve")
        for process in ended:
            process.end(at_once or process.role == "serve")
        self._processes.clear()

        def read(kind: str, dtype: np.dtype[np.void]) -> Records:
            arrays = [np.fromfile(process.outputs[kind], dtype) for process in ended if kind in process.outputs]
            return np.concatenate(arrays) if arrays else np.empty(0, dtype)

        sent, received, echoed = (read(kind, PACKET) for kind in ("sent", "received", "echoed"))
        return Recorded(sent, received, echoed, read("connections", CONNECTION))

    def __enter__(self) -> Traffic:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> Any:
        for process in self._processes:
            process.popen.kill()
            process.popen.communicate(timeout=ENDING_SECONDS)
        self._processes.clear()
