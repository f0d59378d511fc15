"""The agent is killed under traffic: nothing is lost, nothing denied gets through, and later changes take effect."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from ciliate_lab import namespaces

from tests.node.accounting import Outcome, account
from tests.node.labs import Lab, Pod, echo, until
from tests.node.test_policy_enforced import cnp, pods_labelled
from tests.node.traffic import Traffic

BACK_WITHIN = 3.0
"""Seconds from the start of the next agent until changes that were made meanwhile are enforced (DESIGN section 11)."""


def _path(pod: Pod) -> Path:
    return namespaces.path(pod.netns)


def _wait_for_next(lab: Lab, old: int) -> None:
    until(lambda: (now := lab.process("agent"))["ready"] and now["pid"] != old, 30, "the next agent")


def test_a_killed_agent_loses_no_packet_and_lets_none_through(lab: Lab, namespace: str, tmp_path: Path) -> None:
    server = lab.run("server", "sleep", "inf", namespace=namespace, labels=["app=server"])
    friend = lab.run("friend", "sleep", "inf", namespace=namespace, labels=["app=friend"])
    stranger = lab.run("stranger", "sleep", "inf", namespace=namespace, labels=["app=stranger"])
    folders = [tmp_path / name for name in ("allowed", "denied")]
    for folder in folders:
        folder.mkdir()
    with (
        lab.applied(cnp(namespace, "in", ingress=[{"fromEndpoints": pods_labelled("friend")}])),
        Traffic(folders[0]) as allowed,
        Traffic(folders[1]) as denied,
    ):
        for address, family in zip(server.addresses, (4, 6), strict=True):
            allowed.serve([_path(server)], family=family, ports=2)
            allowed.send(_path(friend), address, ports=2, flows=4, rate=500)
            allowed.connect(_path(friend), [address], ports=2, rate=50)
            denied.connect(_path(stranger), [address], ports=2, rate=50, limit_ms=200)
        for _ in range(3):
            _wait_for_next(lab, lab.signal("agent", signal.SIGKILL))
        attempts = denied.stop().connections
        records = allowed.stop()
    flows = account(records.sent, records.received)
    assert sum(flow.sent for flow in flows) > 1000
    assert [flow for flow in flows if flow.lost or flow.failed] == []
    assert len(records.connections) > 100
    assert set(records.connections["outcome"]) == {Outcome.ANSWERED}
    assert len(attempts) > 100
    assert set(attempts["outcome"]) == {Outcome.TIMED_OUT}


def test_changes_made_while_the_agent_is_down_are_enforced_by_the_next(lab: Lab, namespace: str) -> None:
    server = lab.run("server", *echo("8080/tcp"), namespace=namespace, labels=["app=server"], ports=["8080/tcp"])
    client = lab.run("client", "sleep", "inf", namespace=namespace, labels=["app=client"])
    policy = cnp(namespace, "in", ingress=[{"fromEndpoints": pods_labelled("nobody")}])
    assert client.reaches(server, 8080)
    lab.signal("supervisor", signal.SIGSTOP)  # so that the next agent starts when we want it
    try:
        old = lab.signal("agent", signal.SIGKILL)
        lab.ciliate("apply", "-f", "-", input=json.dumps(policy))
        assert client.reaches(server, 8080), "nobody enforces the change yet, and nothing else changes"
    finally:
        lab.signal("supervisor", signal.SIGCONT)
    until(lambda: lab.process("agent")["pid"] not in (0, old), 30, "the next agent's start")
    began = time.monotonic()
    until(lambda: not client.connects(server.ipv4, 8080, timeout=0.2), 30, "the change")
    assert time.monotonic() - began < BACK_WITHIN
    assert not client.reaches(server, 8080)
    _wait_for_next(lab, old)
    lab.delete(policy)
    until(lambda: client.reaches(server, 8080), what="the policy's end")


def test_pods_made_while_the_agent_is_down_are_connected_by_the_next(lab: Lab, namespace: str) -> None:
    lab.signal("supervisor", signal.SIGSTOP)
    try:
        old = lab.signal("agent", signal.SIGKILL)
        words = ["lab", "run", "waiting", "-n", namespace, "--timeout", "0.5", "--", "sleep", "inf"]
        assert lab.ciliate(*words, check=False).returncode == 1
    finally:
        lab.signal("supervisor", signal.SIGCONT)
    _wait_for_next(lab, old)
    until(lambda: any(p["ready"] for p in lab.status()["pods"] if p["namespace"] == namespace), 20, "the pod")


def test_a_pod_removed_while_the_agent_is_down_leaves_nothing(lab: Lab, namespace: str) -> None:
    pod = lab.run("going", "sleep", "inf", namespace=namespace)
    lab.signal("supervisor", signal.SIGSTOP)
    try:
        old = lab.signal("agent", signal.SIGKILL)
        lab.remove("going", namespace=namespace)  # DEL is queued
    finally:
        lab.signal("supervisor", signal.SIGCONT)
    _wait_for_next(lab, old)
    until(lambda: pod.ipv4 not in lab.ciliate("lab", "status").stdout, what="the address's end")
    until(lambda: all(e.get("pod") != "going" for e in lab.dbg("endpoint", "list")), what="the endpoint's end")
