"""`hubble observe` with each filter flag shows what the flag means, and nothing else."""

from __future__ import annotations

from tests.node.hubble.cases import FULL, HOLLOW, cases
from tests.node.hubble.program import Flow, Hubble


def test_each_filter_flag_shows_the_flows_that_it_means_and_no_others(hubble: Hubble, flows: list[Flow]) -> None:
    wrong = {}
    for line, meaning in cases(flows).items():
        expected = [flow["uuid"] for flow in flows if meaning(flow)]
        got = [flow["uuid"] for flow in hubble.flows(f"--all {line}")]
        if got != expected:
            wrong[line] = (len(got), len(expected))
        hollow, full = any(part in line for part in HOLLOW), line in FULL
        assert bool(expected) != hollow and (len(expected) < len(flows)) != full, f"{line} says nothing of these flows"
    assert not wrong, f"flags to how many flows were shown and meant: {wrong}"
