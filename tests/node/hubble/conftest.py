"""One cluster for all tests of this folder, and who asks it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node.hubble.cluster import SETTINGS, Cluster, emit_requests, make_traffic, settled, start
from tests.node.hubble.program import OURS, Flow, Hubble, real_program
from tests.node.labs import Lab, reason_not_to_run

HERE = Path(__file__).parent
_found: dict[str, Any] = {}  # `program` and `reason`, once it is known


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the real program before any test's time limit begins."""
    if not session.config.option.collectonly and any(item.path.is_relative_to(HERE) for item in session.items):
        _found["program"], _found["reason"] = real_program() if os.geteuid() == 0 else (None, "a lab needs root")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which of the two has asked."""
    if "program" in _found:
        who = f"the real program asked ({_found['program']})"
        if _found["program"] is None:
            who = f"our own generated client asked, since the real program can't be had: {_found['reason']}"
        terminalreporter.write_line(f"tests/node/hubble: {who}")


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Pods on two nodes, a policy, a relay that wants certificates. Tests leave it ready."""
    if reason := reason_not_to_run():
        pytest.skip(reason)
    lab = Lab(f"hubble-{os.getpid()}")
    try:
        lab.up("--nodes", "2", *(word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")))
        yield start(lab, tmp_path_factory.mktemp("hubble"))
    finally:
        lab.down()
    assert lab.left() == []


@pytest.fixture(scope="package")
def hubble(cluster: Cluster) -> Hubble:
    """The real program where there is one, else ours."""
    program = _found.get("program")
    return cluster.hubble(*OURS) if program is None else cluster.hubble(str(program))


@pytest.fixture(scope="package")
def real(cluster: Cluster) -> Hubble:
    """The real program, or the test is skipped."""
    if _found.get("program") is None:
        pytest.skip(str(_found.get("reason")))
    return cluster.hubble(str(_found["program"]))


@pytest.fixture(scope="package")
def ours(cluster: Cluster) -> Hubble:
    """`ciliate hubble`."""
    return cluster.hubble(*OURS)


@pytest.fixture(scope="package")
def flows(cluster: Cluster, hubble: Hubble) -> Iterator[list[Flow]]:
    """All flows, of traffic of every kind, when no more are coming."""
    make_traffic(cluster)
    emitter = emit_requests(cluster)
    try:
        yield settled(hubble)
    finally:
        emitter.kill()
        emitter.wait()
        if emitter.stdout is not None:
            emitter.stdout.close()
