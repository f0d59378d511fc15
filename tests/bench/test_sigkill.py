"""The agent is killed under traffic; policies change while it is down; it starts again. No packet may notice.

Ten groups of pods. Every group has four ports, judged by a policy of its own: always allowed, always denied, allowed
until the change, denied until the change. UDP flows and new connections go to all of them all the time.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.bench import harness, settings
from tests.node import accounting
from tests.node.accounting import Outcome
from tests.node.traffic import PORT, Recorded, Traffic

if TYPE_CHECKING:
    from tests.bench.lab import Lab, Manifest

Numbers = npt.NDArray[np.int64]
GROUPS = 10
ALLOWED, DENIED, CLOSED_LATER, OPENED_LATER = range(4)
PORTS = 4
CONNECTIONS = 100
PACKETS = 4000
LIMIT_MS = 900
BEFORE_SECONDS = AFTER_SECONDS = 4.0
ENFORCED_NS = int(settings.BUDGETS["sigkill enforced s"].limit * 1e9)


@dataclass(frozen=True)
class Times:
    """When it was killed, when it was started again, and when traffic was stopped; ns, CLOCK_MONOTONIC."""

    killed: int
    started: int
    stopped: int


def policies(changed: bool) -> list[Manifest]:
    """One policy a group: the third port closes and the fourth opens with the change."""
    from tests.bench.lab import allow_policy

    second = OPENED_LATER if changed else CLOSED_LATER
    ranges = [(PORT + port, PORT + port) for port in (ALLOWED, second)]
    return [allow_policy(f"group{i}", {"group": f"g{i}"}, {"app": "client"}, ranges) for i in range(GROUPS)]


@contextmanager
def supervisor_stopped(lab: Lab) -> Iterator[None]:
    """Keep the lab's supervisor from starting the agent anew at once: it must be down for a while."""
    pid = lab.processes()["supervisor"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def spend(seconds: float) -> None:
    """Let traffic flow for a time: here the time is the test."""
    time.sleep(seconds)


def fault(lab: Lab) -> tuple[int, int]:
    """Kill, change, start; the times of the first and the last."""
    from tests.bench.lab import until

    with supervisor_stopped(lab):
        agent = lab.processes()["agent"]
        killed = time.monotonic_ns()
        os.kill(agent, signal.SIGKILL)
        lab.apply(policies(changed=True), wait=False)
        spend(1)
        started = time.monotonic_ns()
    until(lambda: lab.processes().get("agent", agent) != agent and lab.ready(), "the agent, started again", 30)
    return killed, started


@pytest.fixture(scope="module")
def pods(lab: Lab) -> dict[str, dict[str, Any]]:
    """A client, and members of every group up to the number of endpoints of the plan."""
    lab.apply(policies(changed=False))
    members = {f"s{i}": {"group": f"g{i % GROUPS}"} for i in range(settings.plan().endpoints - 1)}
    return lab.pods({"killclient": {"app": "client"}} | members)


@pytest.fixture(scope="module")
def run(lab: Lab, pods: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Times, Recorded]:
    """The fault under traffic of both families, and what was recorded."""
    client = Path(pods["killclient"]["netns"])
    servers = [pods[f"s{i}"] for i in range(GROUPS)]
    with Traffic(tmp_path_factory.mktemp("kill")) as traffic:
        for family, field in ((4, "ipv4"), (6, "ipv6")):
            addresses = [server[field] for server in servers]
            traffic.serve([Path(server["netns"]) for server in servers], family, ports=PORTS, echo=True)
            for address in addresses:
                rate = PACKETS / 2 / GROUPS
                traffic.send(client, address, ports=PORTS, flows=PORTS, rate=rate, echoes=True)
            traffic.connect(client, addresses, ports=PORTS, rate=CONNECTIONS / 2, limit_ms=LIMIT_MS)
        spend(BEFORE_SECONDS)
        killed, started = fault(lab)
        spend(max(0.0, AFTER_SECONDS + (started - time.monotonic_ns()) / 1e9))
        stopped = time.monotonic_ns()
        return Times(killed, started, stopped), traffic.stop()


def due(port: Numbers, begun: Numbers, ended: Numbers, when: Times) -> Numbers:
    """What must become of traffic: 1 it must pass, 0 it must not, -1 either (while the change is being enforced)."""
    old, new = ended < when.started, begun >= when.started + ENFORCED_NS
    fixed = np.where(port == ALLOWED, 1, 0)
    closing = np.where(old, 1, np.where(new, 0, -1))
    changing = np.where(port == CLOSED_LATER, closing, np.where(closing < 0, -1, 1 - closing))
    return np.where(port >= CLOSED_LATER, changing, fixed)


def last_by_old_policy(port: Numbers, begun: Numbers, passed: Numbers, when: Times) -> float:
    """Seconds after the start at which the last packet was sent that the old policy still judged."""
    old = ((port == CLOSED_LATER) & (passed == 1)) | ((port == OPENED_LATER) & (passed == 0))
    late = old & (begun >= when.started)
    return float((begun[late].max() - when.started) / 1e9) if late.any() else 0.0


def describe(what: str, begun: Numbers, port: Numbers, when: Times) -> Iterator[str]:
    """When, after the start, and on which kind of port something happened; nothing if it did not."""
    for kind in np.unique(port):
        seconds = (begun[port == kind] - when.started) / 1e9
        name = ("allowed", "denied", "closed later", "opened later")[kind]
        yield f"{what} on {name}: {len(seconds)}, from {seconds.min():.2f} to {seconds.max():.2f} s after the start"


def replies_lost(recorded: Recorded) -> int:
    """Of flows that were always allowed: packets that a server sent back and that did not arrive."""
    received = recorded.received[recorded.received["flow"] == ALLOWED]
    return int((~accounting.delivered(received, recorded.echoed)).sum())


def test_a_killed_agent_costs_no_packet_and_its_successor_enforces_what_changed(run: tuple[Times, Recorded]) -> None:
    when, recorded = run
    sent = recorded.sent
    assert (sent["ended"] != 0).all(), "the sending pod itself refused packets"
    passed = accounting.delivered(sent, recorded.received).astype(np.int64)
    port, begun = sent["flow"].astype(np.int64), sent["begun"].astype(np.int64)
    must = due(port, begun, begun, when)

    connections = recorded.connections
    answered = (connections["outcome"] == Outcome.ANSWERED).astype(np.int64)
    silent = connections["outcome"] == Outcome.TIMED_OUT
    opened = connections["begun"].astype(np.int64)
    target_port = connections["target"].astype(np.int64) // GROUPS
    theirs = due(target_port, opened, opened + LIMIT_MS * 1_000_000, when)

    packets_lost, packets_wrong = (must == 1) & (passed == 0), (must == 0) & (passed == 1)
    connections_lost, connections_wrong = (theirs == 1) & (answered == 0), (theirs == 0) & ~silent
    lost = int(packets_lost.sum() + connections_lost.sum()) + replies_lost(recorded)
    wrong = int(packets_wrong.sum() + connections_wrong.sum())
    enforced = last_by_old_policy(port, begun, passed, when)

    report = harness.new_report("sigkill")
    for name, value in (("lost", float(lost)), ("wrong", float(wrong)), ("enforced s", enforced)):
        report.gates.append(harness.gate(f"sigkill {name}", harness.Figure(value, value, value)))
    report.notes += [
        *describe("packets lost", begun[packets_lost], port[packets_lost], when),
        *describe("packets wrong", begun[packets_wrong], port[packets_wrong], when),
        *describe("connections lost", opened[connections_lost], target_port[connections_lost], when),
        *describe("connections wrong", opened[connections_wrong], target_port[connections_wrong], when),
        f"{settings.plan().endpoints} endpoints, {len(sent)} packets, {len(recorded.echoed)} replies, "
        f"{len(connections)} connections, {GROUPS} policies changed",
        f"down for {(when.started - when.killed) / 1e9:.2f} s, traffic for "
        f"{(when.stopped - when.killed) / 1e9:.1f} s after the kill",
    ]
    report.check()


def test_what_is_due_follows_the_policies() -> None:
    when = Times(killed=0, started=10, stopped=10 + 2 * ENFORCED_NS)
    ports = np.arange(PORTS)
    moment = np.full(PORTS, 5)
    assert due(ports, moment, moment, when).tolist() == [1, 0, 1, 0]
    moment = np.full(PORTS, 11)
    assert due(ports, moment, moment, when).tolist() == [1, 0, -1, -1]
    moment = np.full(PORTS, 11 + ENFORCED_NS)
    assert due(ports, moment, moment, when).tolist() == [1, 0, 0, 1]
