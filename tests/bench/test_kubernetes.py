"""An agent on a real API server with 5,000 pods, 1,000 policies and 200 nodes: how soon, how large, how busy it is."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from tests.bench import harness
from tests.bench.cluster import LargeCluster, memory
from tests.bench.harness import Figure
from tests.kubernetes.population import Population
from tests.kubernetes.programs import CONTROL_PLANE, build_all, reason_not_to_run

POPULATION = Population()
RATE = 20.0
"""Changes of pods a second."""
SECONDS = 15.0
CHANGES = 40
"""Of a policy, one after another."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LargeCluster]:
    """A cluster that is filled."""
    if reason := reason_not_to_run(nodes=False):
        pytest.skip(reason)
    build_all(CONTROL_PLANE)
    cluster = LargeCluster(POPULATION)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


def once(value: float) -> Figure:
    """A figure that was measured once."""
    return Figure(value, value, value)


def quantile(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """The bound that a share of the delays between two looks is within."""
    total = after[float("inf")] - before[float("inf")]
    return next(bound for bound in sorted(after) if after[bound] - before[bound] >= share * total)


@pytest.mark.timeout(600)
def test_an_agent_of_a_large_cluster(cluster: LargeCluster) -> None:
    report = harness.new_report("kubernetes")
    ready = cluster.start_agent()
    starting = cluster.seconds()
    cluster.add_pods()
    claims = 2 * (POPULATION.pods - POPULATION.pods // POPULATION.nodes)
    cluster.until("all claims", lambda: len(cluster.api("/tables/ipcache_claims_kubernetes")["rows"]) >= claims)
    restarted = _restart(cluster)
    before, used = cluster.lag(), cluster.seconds()
    cluster.run_inside("tests.bench.churn", str(SECONDS), str(RATE))
    busy = 100 * (cluster.seconds() - used) / SECONDS
    lag = 1000 * quantile(before, cluster.lag(), 0.99)
    sizes = memory(cluster.pid)
    took = np.array(json.loads(cluster.run_inside("tests.bench.enforcing", str(cluster.socket), str(CHANGES))))
    report.figures["policy changed to enforced, ms"] = harness.median_interval(took)
    report.notes += [
        f"{POPULATION.pods} pods, {POPULATION.policies} policies, {POPULATION.nodes} nodes; {RATE:g} changes a second",
        f"ready after {ready:.1f} s ({starting:.1f} s of processor time), after a restart with pods {restarted:.1f} s",
        f"{sizes['pss']:.0f} MB proportional; resident {sizes['rss']:.0f} MB, {sizes['maps']:.0f} MB of them BPF maps",
    ]
    report.gates += [
        harness.gate("kubernetes agent ready s", Figure(ready, min(ready, restarted), max(ready, restarted))),
        harness.gate("kubernetes agent MB", once(sizes["pss"])),
        harness.gate("kubernetes agent cpu %", once(busy)),
        harness.gate("kubernetes agent lag p99 ms", once(lag)),
        harness.gate("kubernetes policy p50 ms", harness.median_interval(took)),
    ]
    report.check()


def _restart(cluster: LargeCluster) -> float:
    """What the agent is like that counts: one that has been started on a node full of pods."""
    cluster.stop_agent()
    return cluster.start_agent()
