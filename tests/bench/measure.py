"""One measurement: a server at one end of a link, a client at the other, both on one CPU, one figure."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.bench import build, settings
from tests.bench.spaces import Link

PORT = 7000
SERVER_SECONDS = 3600
NETBENCH = Path(__file__).with_name("netbench.c")


class MeasureError(Exception):
    """A measurement came to nothing; which, and what the program said, is in the message."""


@dataclass(frozen=True)
class Workload:
    """What the client does. `mode`: rr, crr or udp; `ports`: over how many ports a crr spreads, from PORT on."""

    mode: str
    family: int
    ports: int = 1

    @property
    def name(self) -> str:
        """As reports show it."""
        return f"{self.mode} IPv{self.family}" + (f" over {self.ports} ports" if self.ports > 1 else "")


class Sample(msgspec.Struct, frozen=True):
    """What netbench printed. Latencies are of one operation, in microseconds.

    `cpu_seconds` is the processor time of client and server together, softirqs on their time included. On a quiet
    machine it equals `seconds`: both are on one CPU and one of them always runs. Beside other work it is what they got.
    """

    ops: int
    errors: int
    seconds: float
    cpu_seconds: float
    rate: float
    p50_us: float
    p95_us: float
    p99_us: float
    max_us: float

    @property
    def cpu_rate(self) -> float:
        """Operations a second of processor time: steady beside other work, blind to time spent waiting."""
        return self.ops / self.cpu_seconds


_Key = tuple[str, str, int, int]  # link, tcp or udp, family, ports


class Bench:
    """Keeps a server for each link and kind of workload, and runs clients against them. Close it at the end."""

    def __init__(self) -> None:
        self._program = str(build.program(NETBENCH))
        self._servers: dict[_Key, subprocess.Popen[str]] = {}

    def sample(self, link: Link, workload: Workload, seconds: float) -> Sample:
        """Run one client. Raises MeasureError if operations failed: a broken path has no rate."""
        clock = (~self._serve(link, workload).pid << 3) | 2  # of that process's CPU time, see clock_getcpuclockid(3)
        before = time.clock_gettime(clock)
        command = [self._program, workload.mode, "-n", str(link.client), "-c", str(settings.LOAD_CPU)]
        command += ["-p", str(PORT), "-P", str(workload.ports), "-t", str(seconds)]
        for address in link.addresses[workload.family]:
            command += ["-d", address]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 30)
        if done.returncode:
            raise MeasureError(f"{workload.name} over {link.name}: {done.stderr.strip()} {done.stdout.strip()}")
        sample = msgspec.json.decode(done.stdout, type=Sample)
        if sample.errors or not sample.ops:
            raise MeasureError(f"{workload.name} over {link.name}: {sample.errors} errors in {sample.ops} operations")
        return msgspec.structs.replace(sample, cpu_seconds=sample.cpu_seconds + time.clock_gettime(clock) - before)

    def _serve(self, link: Link, workload: Workload) -> subprocess.Popen[str]:
        datagrams = workload.mode == "udp"
        key = (link.name, "udp" if datagrams else "tcp", workload.family, workload.ports)
        if key in self._servers:
            return self._servers[key]
        self._stop(lambda other: other[0] == link.name and other[1:3] == key[1:3])
        command = [self._program, "server", "-f", str(workload.family), "-c", str(settings.LOAD_CPU)]
        command += ["-p", str(PORT), "-P", str(workload.ports), "-t", str(SERVER_SECONDS)]
        command += ["-u"] if datagrams else []
        for space in link.servers:
            command += ["-n", str(space)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        if server.stdout.readline() != "ready\n":
            server.communicate(timeout=10)
            raise MeasureError(f"the server of {workload.name} over {link.name} ended with {server.returncode}")
        self._servers[key] = server
        return server

    def _stop(self, chosen: Callable[[_Key], bool] = lambda key: True) -> None:
        for key in [key for key in self._servers if chosen(key)]:
            server = self._servers.pop(key)
            server.kill()
            server.communicate(timeout=10)

    def close(self) -> None:
        """End every server."""
        self._stop()


def describe() -> dict[str, str]:
    """The machine, for the report."""
    cpu = json.loads(subprocess.run(["lscpu", "-J"], capture_output=True, text=True, check=True).stdout)["lscpu"]
    model = next((entry["data"] for entry in cpu if entry["field"] == "Model name:"), "unknown")
    return {"kernel": Path("/proc/sys/kernel/osrelease").read_text().strip(), "cpu": model}
