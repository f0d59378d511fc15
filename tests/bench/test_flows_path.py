"""What keeping, counting and following every flow costs packets: requests between pods with Hubble and without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.bench import harness, settings, spaces
from tests.bench.lab import Lab, allow_policy, until
from tests.bench.measure import PORT, Bench, Workload

PLUGINS_WITHOUT = ["cni", "ipam", "policy", "lab"]
METRICS = [
    "drop",
    "flow:sourceContext=workload-name;destinationContext=workload-name",
    "icmp",
    "port-distribution",
    "tcp",
]
SAMPLES = 3
"""Times the pairs of the plan: two paths that differ by nothing but what another processor does are close."""


def _link(lab: Lab, name: str) -> spaces.Link:
    lab.apply([allow_policy("measured", {"app": "server"}, {"app": "client"}, [(PORT, PORT)])])
    rows = lab.pods({"client": {"app": "client"}, "server": {"app": "server"}})
    lab.await_tcx()
    lab.pin({settings.OTHER_CPU})
    return lab.link(name, rows["client"], [rows["server"]])


@contextmanager
def _follower(lab: Lab) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody who follows all flows of a lab through its relay."""
    command = [str(Path(sys.executable).with_name("ciliate")), "hubble", "observe", "-f", "-o", "json"]
    environment = os.environ | {"CILIATE_LAB": lab.name}
    follower = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    os.sched_setaffinity(follower.pid, {settings.OTHER_CPU})
    try:
        yield follower
    finally:
        follower.kill()
        follower.wait()


def _seen(lab: Lab) -> int:
    return int(json.loads(lab.command("hubble", "status", "-o", "json")).get("seen_flows", 0))


@pytest.fixture(scope="module")
def links() -> Iterator[tuple[spaces.Link, spaces.Link, Lab]]:
    """Pods of a node without Hubble, pods of one with it, metrics and a follower; and the latter's lab."""
    with ExitStack() as stack:
        off = stack.enter_context(Lab(f"flows-off-{os.getpid()}", {"plugins": json.dumps(PLUGINS_WITHOUT)}))
        on = stack.enter_context(Lab(f"flows-on-{os.getpid()}", {"hubble.metrics": json.dumps(METRICS)}))
        links = _link(off, "flows off"), _link(on, "flows on")
        stack.enter_context(_follower(on))
        yield *links, on


@pytest.mark.parametrize("family", [4, 6])
def test_requests_between_pods_with_flows_on(
    bench: Bench, links: tuple[spaces.Link, spaces.Link, Lab], family: int
) -> None:
    off, on, lab = links
    before, workload = _seen(lab), Workload("rr", family)
    comparison = harness.compare(bench, off, [on], workload, times=SAMPLES)
    until(lambda: _seen(lab) > before, "flows of what was measured")
    report = harness.new_report(f"flows path {workload.name}")
    report.rows += comparison.rows()
    report.notes.append(f"{_seen(lab) - before} flows seen meanwhile")
    report.gates.append(harness.gate("rr flows on of off", comparison.ratio("flows on")))
    report.check()
