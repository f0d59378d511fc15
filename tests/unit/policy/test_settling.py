"""Policies worked out in steps, while everything else changes, come to what they would at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from ciliate.model.endpoint import NamedPort
from ciliate_policy import engine, entries
from ciliate_policy.changes import LocalEndpoint
from ciliate_policy.objects import read_cidr_group, read_policy
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.policy.test_engine import GROUPS, PODS, SLOW, assert_agrees, manifests
from tests.unit.policy.world import Cluster, pod


@pytest.fixture(autouse=True, scope="module")
def stepwise() -> Iterator[None]:
    """All policies are large."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "_MANY", -1)
        yield


def settle_in_steps(cluster: Cluster, meanwhile: list[Callable[[], Any]], pauses: list[int]) -> None:
    """Settle, and do one thing after another when so many steps have been made."""
    waits, left = itertools.chain(pauses, itertools.repeat(0)), list(reversed(meanwhile))
    wait = next(waits)
    while cluster.engine.dirty or left:
        steps = cluster.engine.settling(next(iter(cluster.engine.dirty))) if cluster.engine.dirty else iter(())
        for _ in itertools.chain(steps, [None]):
            wait -= 1
            if wait < 0 and left:
                left.pop()()
                wait = next(waits)
    for _ in cluster.engine.release_retired(cluster.engine.retired):
        pass


@settings(SLOW, max_examples=80)
@given(manifests(), manifests(), st.lists(st.integers(0, 12), max_size=12), st.booleans())
def test_whatever_changes_meanwhile_is_seen_to(
    before: list[dict[str, Any]], after: list[dict[str, Any]], pauses: list[int], late: bool
) -> None:
    """Policies go and come, CIDR groups come, pods are told of late, while it is worked out what they mean."""
    cluster = Cluster(PODS[:2] if late else PODS)
    for manifest in before:
        cluster.engine.set_policy(read_policy(manifest))
    meanwhile: list[Callable[[], Any]] = [
        *(partial(cluster.engine.remove_policy, read_policy(manifest).key) for manifest in before),
        *(partial(cluster.engine.set_group, read_cidr_group(group)[0]) for group in GROUPS),
        *(partial(cluster.engine.set_policy, read_policy(manifest)) for manifest in after),
    ]
    if late:
        meanwhile[1:1] = [partial(add, cluster, number) for number in range(2, len(PODS))]
    settle_in_steps(cluster, meanwhile, pauses)
    assert not cluster.engine._building and not cluster.engine._built
    assert_agrees(cluster, after)


def test_a_peer_that_comes_or_goes_at_any_step_is_in_the_policy_or_not() -> None:
    web, peers = PODS[0], [pod("two", app="peer", number=str(number)) for number in range(4)]
    selectors = [{"matchLabels": {"app": "peer", "number": str(number)}} for number in range(4)]
    spec = {
        "endpointSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"fromEndpoints": [one]} for one in selectors],
    }
    metadata = {"name": "p"}
    policy = read_policy(
        {"kind": "CiliumClusterwideNetworkPolicy", "apiVersion": "cilium.io/v2", "metadata": metadata, "spec": spec}
    )
    for at in range(100):
        cluster = Cluster([web])
        gone, come = cluster.identity(peers[0]), peers[1]
        cluster.engine.set_policy(policy)
        (dirty,) = cluster.engine.dirty
        steps = cluster.engine.settling(dirty)
        made = sum(1 for _ in itertools.islice(steps, at))
        cluster.engine.remove_identity(gone)
        new = cluster.identity(come)
        for _ in steps:
            pass
        entries_of = cluster.resolved(web, "ingress").entries
        assert gone not in entries_of and new in entries_of, f"after {made} steps"
        if made < at:
            assert made > 10
            return
    raise AssertionError("it never ends")


def add(cluster: Cluster, number: int) -> None:
    """A pod comes; it is settled with the others of its identity."""
    party = PODS[number]
    names = {6: "TCP", 17: "UDP"}
    ports = party["ports"].items()
    named = tuple(NamedPort(name=name, port=port, protocol=names[protocol]) for name, (protocol, port) in ports)
    cluster.engine.set_endpoint(LocalEndpoint(number + 1, cluster.identity(party), named))
    cluster.endpoint_of[id(party)] = number + 1


def test_a_part_of_many_entries_is_small_and_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "SLICE", 10)
    monkeypatch.setattr(entries, "DISTINCT", 4)
    shared: Any = {(6, port, 16): None for port in range(3)}
    own: Any = {identity: {(6, port, 16): None for port in range(2)} for identity in range(100, 110)}
    everything = dict.fromkeys(range(9), shared) | own
    parts = list(entries.slices(everything))
    assert {identity: profile for part in parts for identity, profile in part.items()} == everything
    assert max(sum(map(len, part.values())) for part in parts) <= 12
    assert max(len({id(profile) for profile in part.values()}) for part in parts) <= 2
