"""Fixtures of the benchmarks: who may run them, what stays open between them, and the table at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.bench import cniplugin, spaces
from tests.bench.measure import Bench
from tests.bench.report import load, markdown

if TYPE_CHECKING:
    from tests.bench.lab import Lab


STARTED = time.time()


@pytest.fixture(scope="session", autouse=True)
def _rooted() -> None:
    """Root only."""
    if os.geteuid() != 0:
        pytest.skip("benchmarks make network namespaces: run them as root")


@pytest.fixture(scope="session")
def made() -> Iterator[spaces.Spaces]:
    """Namespaces of this run, removed at its end."""
    made = spaces.Spaces()
    yield made
    made.close()


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """The measuring end: its servers are ended with the run."""
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture(scope="session")
def bare(made: spaces.Spaces) -> spaces.Link:
    """A bare veth pair: the base of every ratio."""
    return spaces.bare(made, "bare", 201)


@pytest.fixture(scope="session")
def bare_again(made: spaces.Spaces) -> spaces.Link:
    """A second bare veth pair: how much the machine itself varies."""
    return spaces.bare(made, "bare2", 202)


@pytest.fixture(scope="session")
def forward(made: spaces.Spaces) -> spaces.Link:
    """`bpf_redirect_peer` alone."""
    return spaces.forward(made, 203)


@pytest.fixture(scope="session")
def ptp(made: spaces.Spaces, tmp_path_factory: pytest.TempPathFactory) -> spaces.Link:
    """Two pods of the reference plugin."""
    return cniplugin.ptp_link(made, tmp_path_factory.mktemp("ptp"), 204)


@pytest.fixture(scope="session")
def ptp_plain(made: spaces.Spaces, tmp_path_factory: pytest.TempPathFactory) -> spaces.Link:
    """The same without masquerading: routing by the host's stack alone."""
    return cniplugin.ptp_link(made, tmp_path_factory.mktemp("ptp"), 206, masquerade=False)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A node with Ciliate on it, for every test that needs one."""
    from tests.bench.lab import Lab  # here, so that what needs no lab runs without one

    ranges = {"ipam.cluster_pool_ipv4_mask_size": "21", "ipam.cluster_pool_ipv6_mask_size": "117"}  # for 2,000 pods
    with Lab(f"bench-{os.getpid()}", ranges) as lab:
        yield lab


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what this run measured, as markdown, so that its log is its record."""
    if reports := load(since=STARTED):
        terminalreporter.section("benchmarks (build/bench/results)")
        terminalreporter.write_line("\n".join(markdown(reports)))
