"""Fixtures of the benchmarks: who may run them, what stays open between them, and the table at the end."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bench import cniplugin, settings, spaces
from tests.bench.measure import Bench
from tests.bench.report import load, markdown

if TYPE_CHECKING:
    from tests.bench.lab import Lab


@pytest.fixture(scope="session", autouse=True)
def _rooted() -> Iterator[None]:
    """Root only; and everything but the load keeps off the CPU that is measured."""
    if os.geteuid() != 0:
        pytest.skip("benchmarks make network namespaces: run them as root")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {settings.OTHER_CPU} if settings.OTHER_CPU in before else before)
    yield
    os.sched_setaffinity(0, before)


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
    if not (cniplugin.REFERENCE / "ptp").exists():
        pytest.skip(f"{cniplugin.REFERENCE}/ptp is not there: install containernetworking-plugins")
    return cniplugin.ptp_link(made, Path(tmp_path_factory.mktemp("ptp")), 204)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A node with Ciliate on it, for every test that needs one."""
    if importlib.util.find_spec("ciliate_lab.commands") is None:
        pytest.skip("the lab's commands (ciliate_lab.commands) are not there yet")
    from tests.bench.lab import Lab  # here, so that what needs no lab runs without one

    with Lab(f"bench-{os.getpid()}") as lab:
        yield lab


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured, as markdown, so that a run's log is its record."""
    if reports := load():
        terminalreporter.section("benchmarks (build/bench/results)")
        terminalreporter.write_line("\n".join(markdown(reports)))
