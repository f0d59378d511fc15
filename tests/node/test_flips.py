"""One rule changed 100,000 times under traffic on two CPUs: no old form of it judges a packet 1 ms after the report.

The changes go through policy's own machinery, in this process: the engine works out the endpoint's new policy, the
realiser writes it under a new id, points the endpoint at it and bumps its counter. Then the change counts as reported,
before the agent would tell anybody. The node's agent is stopped meanwhile: two writers would be one too many.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ciliate.counters import Counters
from ciliate.model.endpoint import ENDPOINT_POLICY_MAP, ENDPOINT_STAMPS_MAP
from ciliate.model.policy import POLICY_MAP
from ciliate_policy.changes import LocalEndpoint
from ciliate_policy.engine import Engine
from ciliate_policy.objects import read_policy
from ciliate_policy.realise import Realised, Realiser
from ciliate_policy.rule_sets import RuleSets

from tests.bench.lab import Lab
from tests.node.flips import FLOWS, HOLD_NS, Mode, flip, judge
from tests.node.traffic import PORT, Traffic

FLIPS = 50_000
"""In each of two modes: 100,000 changes."""
RATE = 10_000
"""Packets a second from each of two CPUs."""


def rule(mode: Mode, k: int) -> dict[str, Any]:
    """The policy after change k: it allows, or denies, the client on port PORT + k, and on no other."""
    client = [{"matchLabels": {"app": "flipclient"}}]
    one = [{"ports": [{"port": str(PORT + k), "protocol": "UDP"}]}]
    spec: dict[str, Any] = {"endpointSelector": {"matchLabels": {"app": "flipserver"}}}
    if mode is Mode.ALLOW_ONE:
        spec["ingress"] = [{"fromEndpoints": client, "toPorts": one}]
    else:
        spec["ingress"] = [{"fromEndpoints": client}]
        spec["ingressDeny"] = [{"fromEndpoints": client, "toPorts": one}]
    metadata = {"name": "flip", "namespace": "default", "uid": "flip", "generation": 1}
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec}


class Machinery:
    """Engine and realiser over a node's maps, for its endpoints as they are."""

    def __init__(self, lab: Lab, mode: Mode) -> None:
        self._engine = Engine()
        identities = {row["id"]: row["identity"] for row in lab.table("endpoint_policies")}
        for row in lab.table("endpoints"):
            self._engine.set_identity(identities[row["id"]], tuple(row["labels"]))
            self._engine.set_endpoint(LocalEndpoint(row["id"], identities[row["id"]]))
        slots = lab.map(ENDPOINT_POLICY_MAP).mmap(writable=True)
        stamps = Counters(lab.map(ENDPOINT_STAMPS_MAP))
        self._realiser = Realiser(self._engine, lab.map(POLICY_MAP), slots, stamps, RuleSets(), lambda rows: None)
        self._done = Realised()
        self._policies = [read_policy(rule(mode, k)) for k in range(FLOWS)]
        self.apply(0)

    def apply(self, k: int) -> None:
        """Change k; enforced when this returns. What the last one left behind is deleted first."""
        for _ in self._realiser.tidy(self._done):
            pass
        self._engine.set_policy(self._policies[k % FLOWS])
        self._engine.settle_all()
        changes = self._engine.take()
        for _ in self._realiser.write_entries(changes, self._done):
            pass
        self._realiser.point(changes, self._done)


@pytest.fixture(scope="module")
def pods() -> Iterator[tuple[Lab, dict[str, dict[str, Any]]]]:
    """A lab with a client and a server, whose agent is stopped."""
    if os.geteuid() != 0:
        pytest.skip("makes network namespaces: run as root")
    with Lab(f"flips-{os.getpid()}") as lab:
        yield lab, lab.pods({"client": {"app": "flipclient"}, "server": {"app": "flipserver"}})


@pytest.mark.parametrize(("mode", "family"), [(Mode.ALLOW_ONE, 4), (Mode.DENY_ONE, 6)], ids=["allow one", "deny one"])
def test_no_packet_is_judged_by_an_old_rule_a_millisecond_after_the_report(
    pods: tuple[Lab, dict[str, dict[str, Any]]], tmp_path: Path, mode: Mode, family: int
) -> None:
    lab, rows = pods
    machinery = Machinery(lab, mode)
    link = lab.link("flips", rows["client"], [rows["server"]])
    agent = lab.processes()["agent"]
    os.kill(agent, signal.SIGSTOP)
    try:
        with Traffic(tmp_path) as traffic:
            traffic.serve(link.servers, family, ports=FLOWS, echo=True)
            for cpu in range(2):
                traffic.send(link.client, link.addresses[family][0], ports=FLOWS, flows=FLOWS, rate=RATE, cpu=cpu)
            flips = flip(machinery.apply, FLIPS, HOLD_NS)
            recorded = traffic.stop()
    finally:
        os.kill(agent, signal.SIGCONT)
    result = judge(mode, flips, recorded.sent, recorded.received, FLOWS)
    print(f"\n{mode.value}, IPv{family}: {result}")
    assert len(result.wrong) == 0, str(result)
    named = len(recorded.received) if mode is Mode.ALLOW_ONE else len(recorded.sent) - len(recorded.received)
    assert 0.5 / FLOWS < named / len(recorded.sent) < 2 / FLOWS, "the rule did not do what it says"
    assert result.checked_flips > 0.8 * FLIPS, str(result)
