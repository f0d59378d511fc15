"""SIGKILL of every process at random, under traffic, with pods coming and going."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from tests.node.faults import FULL
from tests.node.faults.churn import Churn, given_twice, shortest_rest
from tests.node.faults.inventory import await_equal, settled
from tests.node.faults.kills import TARGETS, Killer
from tests.node.faults.steady import Cast, Steady
from tests.node.labs import Lab, until

SECONDS = 600.0 if FULL else 17.0
REUSE_DELAY = 60.0
"""The default of ipam.reuse_delay."""


def warm_up(lab: Lab, cast: Cast, seed: int) -> None:
    """One round of coming and going, so that what is made once and kept is there before anything is compared."""
    with Churn(lab, cast, seed) as churn:
        until(lambda: len(churn.tenures) >= 4, 60, "the first pods")
    assert churn.wrong == []


@pytest.mark.timeout(SECONDS + 700)
def test_every_process_is_killed_at_random_and_no_packet_notices(
    lab: Lab, cast: Cast, steady: Callable[..., Steady]
) -> None:
    seed = int(os.environ.get("CILIATE_SEED", time.time_ns() % 1_000_000))
    print(f"seed {seed}")  # CILIATE_SEED repeats it
    warm_up(lab, cast, seed)
    before = settled(lab)
    killer = Killer(lab, seed)
    with steady(seconds=SECONDS + 300) as traffic:
        with Churn(lab, cast, seed) as churn:
            killer.run(SECONDS)
        until(lambda: lab.status()["ready"], 60, "the lab, ready again")
        figures = traffic.stop()
    rest = shortest_rest(churn.tenures)
    print(
        f"{sum(killer.killed.values())} kills in {SECONDS:g} s ({dict(killer.killed)}); {len(churn.tenures)} pods came"
        f" and went, {len(churn.retried)} steps tried again, shortest rest of an address {rest:.0f} s; {figures}"
    )
    print(*churn.retried, sep="\n")
    figures.check()
    assert churn.wrong == []
    assert given_twice(churn.tenures) == []
    assert rest > REUSE_DELAY
    assert set(killer.killed) == set(TARGETS)
    await_equal(lab, before)
