"""What the operator and the agents say in objects, in a lab: as in a cluster with an API server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from ciliate.cli.cluster import find_cluster
from ciliate.model.kinds import CILIUM_NETWORK_POLICY
from ciliate.model.policy_report import ENFORCED, condition_of
from ciliate.store import follow

from tests.node.labs import Lab, echo, until

POLICY: dict[str, Any] = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"endpointSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"fromEndpoints": [{}]}]},
}


def get(lab: Lab, *words: str) -> list[list[str]]:
    """The lines that `ciliate get` prints, in columns, without the first."""
    return [line.split() for line in lab.ciliate("get", *words).stdout.splitlines()[1:]]


def enforced(lab: Lab) -> dict[str, Any]:
    """The condition Enforced of the policy."""
    found = json.loads(lab.ciliate("get", "cnp", "web", "-o", "json").stdout)
    return next((one for one in (found.get("status") or {}).get("conditions", ()) if one["type"] == "Enforced"), {})


def test_two_nodes_and_an_operator_say_what_is_so(make_lab: Callable[..., Lab]) -> None:
    """One lab for all of it: starting one takes longer than what is looked at."""
    lab = make_lab("--nodes", "2")
    web = lab.run("web", *echo("8080/tcp"), ports=["http:8080/tcp"], labels=["app=web"], node="node1")
    twin = lab.run("twin", *echo("8080/tcp"), ports=["8080/tcp"], labels=["app=web"], node="node2")
    until(lambda: len(get(lab, "cep")) == 2, what="endpoints")
    endpoints = {line[0]: line[1:] for line in get(lab, "cep")}
    identity = endpoints["web"][0]
    assert endpoints["web"] == [identity, "false", "false", "ready", *web.addresses]
    assert endpoints["twin"] == [identity, "false", "false", "ready", *twin.addresses], "one identity on both nodes"
    assert [identity, "default"] in [line[:2] for line in get(lab, "ciliumidentities")]
    nodes = json.loads(lab.ciliate("get", "cn", "-o", "json").stdout)["items"]
    assert {owner["kind"] for node in nodes for owner in node["metadata"]["ownerReferences"]} == {"Node"}

    lab.apply(POLICY)
    assert enforced(lab)["message"] == "generation 1 is enforced on 2 of 2 nodes"
    until(lambda: {line[2] for line in get(lab, "cep")} == {"true"}, what="enforcement in both endpoints")

    os.kill(lab.process("operator")["pid"], signal.SIGKILL)
    lab.apply({**POLICY, "spec": {**POLICY["spec"], "ingress": [{}]}})
    assert enforced(lab)["message"] == "generation 2 is enforced on 2 of 2 nodes"

    agent = lab.process("agent", "node2")["pid"]
    os.kill(agent, signal.SIGSTOP)
    try:
        changed = {**POLICY, "spec": {**POLICY["spec"], "egress": [{"toNodes": [{}]}]}}
        done = lab.ciliate("apply", "-f", "-", "--wait", "--timeout", "3", input=json.dumps(changed), check=False)
        assert "generation 3 is enforced on 1 of 2 nodes; not on node2" in done.stderr
    finally:
        os.kill(agent, signal.SIGCONT)
    until(lambda: enforced(lab)["status"] == "True", timeout=20, what="the node that was stopped says it too")
    reasons = {line[3]: line for line in get(lab, "events")}
    assert "spec.egress[0].toNodes:" in reasons["PolicyNotEnforcedWhole"]

    lab.remove("twin")
    until(lambda: [line[0] for line in get(lab, "cep")] == ["web"], what="the endpoint goes with its pod")


def test_a_policy_is_said_to_be_enforced_soon_after_it_is_written(lab: Lab) -> None:
    """From the object in the store to the operator's word that all nodes have it."""

    async def once(number: int) -> float:
        began = time.perf_counter()
        stored = await store.create({**POLICY, "metadata": {"name": f"soon{number}", "namespace": "default"}})
        changes = follow(store, CILIUM_NETWORK_POLICY, "default", {"metadata.name": f"soon{number}"})
        async with aclosing(changes) as followed:  # type: ignore[type-var]
            async for change in followed:
                if any(condition_of(obj, ENFORCED).get("status") == "True" for obj in change.upserts):
                    break
        took = time.perf_counter() - began
        await store.delete(CILIUM_NETWORK_POLICY, stored["metadata"]["name"], "default")
        return took

    async def all_of_them() -> list[float]:
        return [await once(number) for number in range(10)]

    store = find_cluster(lab.name).open_store()
    try:
        took = sorted(asyncio.run(all_of_them()))
    finally:
        asyncio.run(store.close())
    print(f"enforced on all nodes by the operator's word: p50 {took[5] * 1000:.0f} ms")
    assert took[5] < 0.5
