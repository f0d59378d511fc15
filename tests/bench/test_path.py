"""Pod to pod on one node: packets, connections, and connections spread over many peers and ports."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.bench import harness, settings, spaces
from tests.bench.background import Background
from tests.bench.lab import Lab, allow_policy
from tests.bench.measure import PORT, Bench, Workload

WORKLOADS = [Workload(mode, family) for family in (4, 6) for mode in ("rr", "crr", "udp")]


@pytest.fixture(scope="module")
def pods(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, spaces.Link]]:
    """A client, a server, servers to spread over, a policy that allows what is measured, and the background."""
    plan = settings.plan()
    labels = {"client": {"app": "client"}, "server": {"app": "server"}, "noise": {"app": "client"}}
    labels |= {f"peer{i}": {"app": "server"} for i in range(plan.spread_peers)}
    last = PORT + max(plan.spread_ports, 1) - 1
    lab.apply([allow_policy("measured", {"app": "server"}, {"app": "client"}, [(PORT, last), (7900, 7900)])])
    rows = lab.pods(labels)
    lab.await_tcx()
    peers = [rows[f"peer{i}"] for i in range(plan.spread_peers)]
    everywhere = os.sched_getaffinity(0)
    lab.pin({settings.OTHER_CPU})
    with Background(lab, lab.link("noise", rows["noise"], [rows["server"]]), tmp_path_factory.mktemp("noise")):
        yield {
            "one": lab.link("ciliate", rows["client"], [rows["server"]]),
            "spread": lab.link("ciliate spread", rows["client"], peers),
        }
    lab.pin(everywhere)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_pod_to_pod(
    bench: Bench,
    bare: spaces.Link,
    forward: spaces.Link,
    ptp: spaces.Link,
    pods: dict[str, spaces.Link],
    workload: Workload,
) -> None:
    comparison = harness.compare(bench, bare, [pods["one"], forward, ptp], workload)
    report = harness.new_report(f"path {workload.name}")
    report.rows += comparison.rows()
    report.figures["ciliate of ptp"] = comparison.ratio_between("ciliate", "ptp")
    report.figures["added, times forward's"] = comparison.added_times("ciliate", "forward")
    if workload.mode in ("rr", "crr"):
        report.gates.append(harness.gate(f"{workload.mode} of bare", comparison.ratio("ciliate")))
        report.gates.append(harness.gate(f"{workload.mode} added of forward", report.figures["added, times forward's"]))
    if workload.mode == "rr":
        report.gates.append(harness.gate("rr of ptp", report.figures["ciliate of ptp"]))
    report.check()


@pytest.mark.parametrize("family", [4, 6])
def test_connections_spread_over_peers_and_ports(
    bench: Bench, made: spaces.Spaces, pods: dict[str, spaces.Link], family: int
) -> None:
    plan = settings.plan()
    bare_spread = spaces.bare(made, f"spread{family}", 205 + family, plan.spread_peers)
    workload = Workload("crr", family, plan.spread_ports)
    comparison = harness.compare(bench, bare_spread, [pods["spread"]], workload)
    report = harness.new_report(f"path {workload.name} of {plan.spread_peers} peers")
    report.rows += comparison.rows()
    report.gates.append(harness.gate("crr spread of bare", comparison.ratio("ciliate spread")))
    report.check()
