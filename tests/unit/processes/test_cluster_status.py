"""`ciliate status`: a report from processes' cards, and how it reads."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from ciliate import directory
from ciliate.api.routes import Request, Route
from ciliate.api.server import ApiServer
from ciliate.cli.dispatch import CommandError
from ciliate.cli.report import Component, Problem, Report, report_nodes
from ciliate_node.cluster.status import render, seconds


@pytest.mark.skipif(os.geteuid() != 0, reason="no root: the API socket answers root only")
async def test_each_nodes_processes_are_asked_and_the_dead_are_named(tmp_path: Path) -> None:
    async def status(_: Request) -> Any:
        return {"ready": False, "reasons": {"cni": ["no pod range yet"]}, "degraded": {"zoo": ["no water"]}}

    server = ApiServer(tmp_path / "agent.sock")
    server.add([Route("GET", "/status", status, "Status.")])
    await server.start()
    for process in ("agent", "hubble"):
        socket = tmp_path / f"{process}.sock"
        directory.publish(tmp_path, directory.Card(process=process, pid=1, socket=str(socket), version="1"))
    try:
        report = await asyncio.to_thread(report_nodes, "c", {"n1": tmp_path, "n2": tmp_path / "none"})
    finally:
        await server.stop()
    assert [(c.name, c.desired, c.available, c.ready) for c in report.components] == [
        ("agent", 1, 1, 0),
        ("hubble", 1, 0, 0),
    ]
    told = {p.where: p.text for p in report.problems if p.level == "error"}
    assert told["n1/agent"] == "cni: no pod range yet"
    assert [(p.where, p.text) for p in report.problems if p.level == "warning"] == [("n1/agent", "zoo: no water")]
    assert "is the process running" in told["n1/hubble"]
    assert "no process has run" in told["n2"]


def test_a_report_reads_as_users_of_cilium_know_it() -> None:
    agent = Component(
        name="agent", workload="DaemonSet ciliate", desired=2, ready=1, available=1, phases={"Pending": 1}
    )
    operator = Component(name="operator", workload="Deployment ciliate-operator", desired=1, ready=1, available=1)
    agent.versions = {"ciliate:1": 2}
    problem = Problem(component="agent", where="ciliate-x", text="container agent waits")
    report = Report(cluster="c", components=[agent, operator], problems=[problem], pods=(3, 4))
    lines = [" ".join(line.split()) for line in render(report).splitlines()]
    for line in (
        "Agent: 1 error",
        "Operator: OK",
        "DaemonSet ciliate Desired: 2, Ready: 1/2, Available: 1/2, Unavailable: 1, Pending: 1",
        "agent ciliate:1: 2",
        "Cluster Pods: 3/4 managed by Ciliate",
        "agent ciliate-x container agent waits",
    ):
        assert line in lines


def test_durations_have_units_and_nonsense_is_refused() -> None:
    assert (seconds("90"), seconds("90s"), seconds("5m"), seconds("0.5h")) == (90, 90, 300, 1800)
    with pytest.raises(CommandError, match="--wait-duration"):
        seconds("soon")
