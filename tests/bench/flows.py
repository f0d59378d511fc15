"""Records as a busy node's data path writes them, and what its hubble knows of their ends."""

from __future__ import annotations

from typing import Any

import numpy as np
from ciliate.model.base import pack_address
from ciliate.model.endpoint import IFINDEX_BASE, Endpoint, EndpointPolicy
from ciliate.model.event import EVENT, EventKind, EventVerdict, Point
from ciliate.model.identity import Identity
from ciliate.model.policy import Direction, Rule, RuleSet
from ciliate.model.reasons import DropReason
from numpy.typing import NDArray

from tests.bench import settings

Records = NDArray[Any]
LOCAL, REMOTE, IDENTITIES, RULE_SETS = 250, 4_000, 10_000, 500
ALLOWED = 16
"""The first of the rule sets."""
TRACES, VERDICTS, DENIED = 0.75, 0.20, 0.05
"""Shares of kinds: half of the peers are of this node, so half of the verdicts are two flows; so is each denied one."""


def endpoints() -> list[Endpoint]:
    """The pods of this node."""
    return [
        Endpoint(
            id=number, generation=1, container_id=f"c{number}", interface="eth0", netns="", pod=f"pod-{number}",
            namespace=f"ns{number % 20}", host_interface=f"lxc{number}", ipv4=f"10.0.0.{number}",
        )
        for number in range(1, LOCAL + 1)
    ]  # fmt: skip


def endpoint_policies() -> list[EndpointPolicy]:
    """What is realised for them."""
    return [
        EndpointPolicy(
            id=number, generation=1, identity=local_identity(number), ingress_policy=1, egress_policy=2, revision=1,
            ingress_default=ALLOWED, egress_default=ALLOWED,
        )
        for number in range(1, LOCAL + 1)
    ]  # fmt: skip


def identities() -> list[Identity]:
    """Those of pods of the whole cluster."""
    return [
        Identity(
            id=256 + number,
            labels=(
                f"k8s:app=app{number}", f"k8s:env=env{number % 7}", "k8s:io.cilium.k8s.policy.cluster=default",
                "k8s:io.cilium.k8s.policy.serviceaccount=default", f"k8s:io.kubernetes.pod.namespace=ns{number % 20}",
            ),
        )
        for number in range(IDENTITIES)
    ]  # fmt: skip


def rule_sets() -> list[RuleSet]:
    """The rules behind verdicts."""
    return [
        RuleSet(
            id=ALLOWED + number,
            rules=(
                Rule(
                    kind="CiliumNetworkPolicy", namespace="default", name=f"policy{number}", uid="u", generation=1,
                    direction="ingress", index=0,
                ),
            ),
        )
        for number in range(RULE_SETS)
    ]  # fmt: skip


def remote_address(number: int) -> str:
    """Of a pod of another node."""
    return f"10.1.{number >> 8}.{number & 255}"


def local_identity(endpoint: int) -> int:
    """Of an endpoint."""
    return 256 + endpoint % 50


def records(count: int) -> Records:
    """A mix of kinds, ends and ports, the same each time."""
    rng = np.random.default_rng(settings.SEED)
    made = np.zeros(count, EVENT)
    kinds = rng.choice([EventKind.TRACE, EventKind.VERDICT, EventKind.DROP], count, p=[TRACES, VERDICTS, DENIED])
    sources, local, destinations = (
        rng.integers(1, LOCAL + 1, count),
        rng.random(count) < 0.5,
        rng.integers(1, LOCAL + 1, count),
    )
    remote = rng.integers(0, REMOTE, count)
    own, far = _packed(f"10.0.0.{n}" for n in range(LOCAL + 1)), _packed(map(remote_address, range(REMOTE)))
    made["kind"], made["protocol"], made["ether_type"] = kinds, rng.choice([6, 6, 6, 17], count), 0x0800
    made["tcp_flags"] = np.where(made["protocol"] == 6, rng.choice([0x02, 0x12, 0x10, 0x18, 0x11], count), 0)
    made["time"] = np.arange(count) * 1000
    made["source_endpoint"], made["source_identity"] = sources, 256 + sources % 50
    made["destination_endpoint"] = np.where(local, destinations, 0)
    made["destination_identity"] = np.where(local, 256 + destinations % 50, 1000 + remote)
    made["source"], made["destination"] = own[sources], np.where(local[:, None], own[destinations], far[remote])
    made["source_port"], made["destination_port"] = (
        rng.integers(32768, 61000, count),
        rng.choice([80, 443, 53, 8080], count),
    )
    made["point"] = np.where(
        kinds == EventKind.DROP, Point.FROM_ENDPOINT, np.where(local, Point.TO_ENDPOINT, Point.TO_STACK)
    )
    denied = kinds == EventKind.DROP
    made["reason"] = np.where(denied, DropReason.POLICY_DENIED, 0)
    made["direction"] = np.where(denied, Direction.INGRESS, 2)
    both = EventVerdict.EGRESS | EventVerdict.INGRESS
    made["verdicts"] = np.where(denied | local, both, EventVerdict.EGRESS) | EventVerdict.REPLY * (
        (kinds == EventKind.TRACE) & (rng.random(count) < 0.5)
    )
    made["rule_set_egress"] = ALLOWED + rng.integers(0, RULE_SETS, count)
    made["rule_set_ingress"] = np.where(denied, 0, ALLOWED + rng.integers(0, RULE_SETS, count))
    made["ifindex"], made["length"], made["packets"] = IFINDEX_BASE + sources, 100, 1
    return made


def _packed(addresses: Any) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(map(pack_address, addresses)), np.uint8).reshape(-1, 16)


WANTED = 7
"""The endpoint whose flows are one in a hundred of those that `one_in_a_hundred` makes."""


def one_in_a_hundred(count: int) -> Records:
    """Records of which each hundredth, from the first on, is one flow from WANTED, and no other is."""
    made = records(count)
    others = made["source_endpoint"] == WANTED
    for side in ("source", "destination"):
        others |= made[f"{side}_endpoint"] == WANTED
    made[others] = made[~others][0]
    chosen = made[::100]
    chosen["kind"], chosen["reason"], chosen["direction"] = EventKind.TRACE, 0, 2
    chosen["source_endpoint"], chosen["source_identity"] = WANTED, local_identity(WANTED)
    chosen["source"] = _packed([f"10.0.0.{WANTED}"])[0]
    return made


def traces(count: int) -> Records:
    """Records of which each is one flow."""
    made = records(count)
    made["kind"], made["reason"], made["direction"] = EventKind.TRACE, 0, 2
    return made
