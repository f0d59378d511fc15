"""The harness itself: two bare veth pairs are equal, and the peers cost what they are known to cost."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench import harness, spaces
from tests.bench.measure import Bench, Workload
from tests.bench.report import load, markdown

WORKLOADS = [Workload(mode, family) for family in (4, 6) for mode in ("rr", "crr", "udp")]


@pytest.mark.parametrize("workload", [Workload("rr", 4), Workload("crr", 4), Workload("crr", 6)], ids=lambda w: w.name)
def test_a_bare_veth_pair_equals_another(
    bench: Bench, bare: spaces.Link, bare_again: spaces.Link, workload: Workload
) -> None:
    comparison = harness.compare(bench, bare, [bare_again], workload)
    report = harness.new_report(f"harness {workload.name}")
    report.rows += comparison.rows()
    ratio = comparison.ratio(bare_again.name)
    report.gates += [harness.gate("bare of bare, low", ratio), harness.gate("bare of bare, high", ratio)]
    report.check()


def test_an_interval_covers_the_true_median_and_shrinks_with_more_pairs() -> None:
    values = np.random.default_rng(1).normal(0.9, 0.02, 400)
    few, many = harness.median_interval(values[:20]), harness.median_interval(values)
    assert few.low < 0.9 < few.high
    assert many.low < 0.9 < many.high
    assert many.high - many.low < few.high - few.low


def test_a_server_spreads_over_ports_and_namespaces(bench: Bench, made: spaces.Spaces) -> None:
    link = spaces.bare(made, "many", 205, peers=3)
    for family in (4, 6):
        assert bench.sample(link, Workload("crr", family, ports=5), 0.1).ops > 100


@pytest.mark.parametrize("family", [4, 6])
def test_every_peer_answers_in_every_mode(
    bench: Bench, bare: spaces.Link, forward: spaces.Link, ptp: spaces.Link, family: int
) -> None:
    for link in (bare, forward, ptp):
        for mode in ("rr", "crr", "udp"):
            assert bench.sample(link, Workload(mode, family), 0.1).ops > 100


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_what_the_peers_cost(
    bench: Bench,
    bare: spaces.Link,
    forward: spaces.Link,
    ptp: spaces.Link,
    ptp_plain: spaces.Link,
    workload: Workload,
) -> None:
    """No gate: the record of the machine on which the other figures were taken."""
    comparison = harness.compare(bench, bare, [forward, ptp, ptp_plain], workload)
    report = harness.new_report(f"peers {workload.name}")
    report.rows += comparison.rows()
    report.check()


def test_the_folder_of_results_can_be_read_back() -> None:
    report = harness.new_report("read back")
    path = report.save()
    assert any("read back" in line for line in markdown(load()))
    path.unlink()
