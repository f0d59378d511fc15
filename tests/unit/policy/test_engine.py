"""The engine agrees with the oracle on whatever hypothesis thinks of."""

from __future__ import annotations

from typing import Any

import pytest
from ciliate_policy.changes import EngineOptions
from ciliate_policy.objects import read_policy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.policy.oracle import judge
from tests.unit.policy.world import Cluster, outside, pod, reserved

APPS = ("web", "db", "cache")
NAMESPACES = ("one", "two")
PODS = [
    pod("one", {"http": (6, 80), "dns": (17, 53)}, app="web", tier="front"),
    pod("one", {"http": (6, 8080)}, app="db"),
    pod("two", {"dns": (6, 53)}, app="web"),
    pod("two", app="cache", tier="front"),
    {"labels": ["reserved:init"], "ports": {}},
]
OUTSIDE = [outside(a) for a in ("10.0.0.1", "10.1.2.3", "10.1.9.9", "192.0.2.7", "fd00::1", "fd00:1::5", "2001:db8::1")]
PEERS = [*PODS, *OUTSIDE, *(reserved(n) for n in ("host", "remote-node", "health", "unmanaged", "ingress"))]
CIDRS = (
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "0.0.0.0/0",
    "::/0",
    "fd00::/8",
    "fd00:1::/32",
    "fd00::1/128",
)
EXCEPTS = {
    "10.0.0.0/8": ["10.1.0.0/16", "10.1.2.0/24", "10.0.0.1/32"],
    "10.1.0.0/16": ["10.1.2.0/24"],
    "0.0.0.0/0": ["10.0.0.0/8", "192.0.2.0/24"],
    "fd00::/8": ["fd00:1::/32"],
    "::/0": ["fd00::/8"],
}
GROUPS = [
    {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumCIDRGroup",
        "metadata": {"name": "lab", "labels": {"kind": "lab"}},
        "spec": {"externalCIDRs": ["10.1.0.0/16", "fd00:1::/32"]},
    },
    {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumCIDRGroup",
        "metadata": {"name": "docs", "labels": {"kind": "docs"}},
        "spec": {"externalCIDRs": ["192.0.2.0/24", "10.0.0.0/8"]},
    },
]
PROBES = [(6, 80), (6, 8080), (6, 53), (17, 53), (17, 80), (132, 80), (1, 8), (58, 128), (6, 65535), (6, 0)]


def requirement(keys: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    with_values = st.fixed_dictionaries(
        {
            "key": st.sampled_from(keys),
            "operator": st.sampled_from(["In", "NotIn"]),
            "values": st.lists(st.sampled_from([*APPS, "front", *NAMESPACES]), min_size=1, max_size=2, unique=True),
        }
    )
    without = st.fixed_dictionaries(
        {"key": st.sampled_from(keys), "operator": st.sampled_from(["Exists", "DoesNotExist"])}
    )
    return with_values | without


def selector(keys: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    labels = st.dictionaries(st.sampled_from(keys), st.sampled_from([*APPS, "front", *NAMESPACES]), max_size=1)
    return st.just({}) | st.builds(
        lambda a, b: ({"matchLabels": a} if a else {}) | ({"matchExpressions": b} if b else {}),
        labels,
        st.lists(requirement(keys), max_size=2),
    )


POD_KEYS = ("app", "k8s:tier", "k8s:app")
PEER_KEYS = (*POD_KEYS, "k8s:io.kubernetes.pod.namespace", "io.cilium.k8s.namespace.labels.team", "reserved:host")
ports = st.one_of(
    st.fixed_dictionaries(
        {"port": st.sampled_from(["0", "53", "80", "8080", "http", "dns"])},
        optional={"protocol": st.sampled_from(["TCP", "UDP", "SCTP", "ANY"])},
    ),
    st.builds(
        lambda first, more, protocol: {"port": str(first), "endPort": first + more, "protocol": protocol},
        st.sampled_from([1, 53, 79, 1024]),
        st.integers(0, 9000),
        st.sampled_from(["TCP", "UDP", "ANY"]),
    ),
)
allow_ports: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"ports": st.lists(ports, min_size=1, max_size=3)},
    optional={"rules": st.sampled_from([{}, {"http": []}])},
)
l7_ports = st.just({"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"method": "GET"}]}})
icmps = st.sampled_from([[{"fields": [{"type": 8}]}], [{"fields": [{"family": "IPv6", "type": "128"}, {"type": 0}]}]])
cidr_rules = st.one_of(
    st.sampled_from(CIDRS).flatmap(
        lambda c: st.lists(st.sampled_from(EXCEPTS.get(c, [c])), max_size=2, unique=True).map(
            lambda e: {"cidr": c, "except": e} if e else {"cidr": c}
        )
    ),
    st.sampled_from(
        [
            {"cidrGroupRef": "lab"},
            {"cidrGroupRef": "absent"},
            {"cidrGroupRef": "docs", "except": ["10.1.0.0/16"]},
            {"cidrGroupSelector": {"matchLabels": {"kind": "docs"}}},
        ]
    ),
)


def element(direction: str, deny: bool) -> st.SearchStrategy[dict[str, Any]]:
    side = "from" if direction == "ingress" else "to"
    peers = st.one_of(
        st.just({}),
        st.lists(selector(PEER_KEYS), max_size=2).map(lambda v: {f"{side}Endpoints": v}),
        st.lists(
            st.sampled_from(["all", "world", "world-ipv6", "cluster", "host", "remote-node", "init", "none", "health"]),
            max_size=2,
        ).map(lambda v: {f"{side}Entities": v}),
        st.lists(st.sampled_from(CIDRS), max_size=3).map(lambda v: {f"{side}CIDR": v}),
        st.lists(cidr_rules, max_size=3).map(lambda v: {f"{side}CIDRSet": v}),
        st.sampled_from([{f"{side}Groups": [{"aws": {}}]}, {f"{side}Groups": []}]),
    )
    rules = allow_ports.map(lambda v: {"ports": v["ports"]}) if deny else allow_ports | l7_ports
    l4 = st.one_of(
        st.just({}), st.lists(rules, max_size=2).map(lambda v: {"toPorts": v}), icmps.map(lambda v: {"icmps": v})
    )
    return st.builds(lambda a, b: a | b, peers, l4)


def rule() -> st.SearchStrategy[dict[str, Any]]:
    sections = st.fixed_dictionaries(
        {},
        optional={
            section: st.lists(element(section.removesuffix("Deny"), section.endswith("Deny")), max_size=2)
            for section in ("ingress", "ingressDeny", "egress", "egressDeny")
        }
        | {"enableDefaultDeny": st.dictionaries(st.sampled_from(["ingress", "egress"]), st.booleans())},
    ).filter(lambda s: any(s.get(name) for name in ("ingress", "ingressDeny", "egress", "egressDeny")))
    subject = selector(POD_KEYS)
    return st.builds(lambda a, b: {"endpointSelector": a} | b, subject, sections)


def cnp(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    metadata = (
        st.sampled_from(NAMESPACES).map(lambda n: {"namespace": n}) if kind == "CiliumNetworkPolicy" else st.just({})
    )
    return st.builds(
        lambda m, r, many: (
            {"kind": kind, "apiVersion": "cilium.io/v2", "metadata": m} | ({"specs": r} if many else {"spec": r[0]})
        ),
        metadata,
        st.lists(rule(), min_size=1, max_size=2),
        st.booleans(),
    )


def knp() -> st.SearchStrategy[dict[str, Any]]:
    peer = st.one_of(
        st.fixed_dictionaries({"podSelector": selector(("app", "tier"))}),
        st.fixed_dictionaries({"namespaceSelector": selector(("team",))}),
        st.fixed_dictionaries({"namespaceSelector": selector(("team",)), "podSelector": selector(("app",))}),
        st.sampled_from(
            [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, {"ipBlock": {"cidr": "::/0"}}]
        ),
    )
    port = st.sampled_from(
        [
            {},
            {"port": 80},
            {"port": "http"},
            {"port": 53, "protocol": "UDP"},
            {"protocol": "UDP"},
            {"port": 70, "endPort": 90},
        ]
    )

    def item(side: str) -> st.SearchStrategy[dict[str, Any]]:
        return st.fixed_dictionaries(
            {}, optional={side: st.lists(peer, max_size=2), "ports": st.lists(port, max_size=2)}
        )

    spec = st.fixed_dictionaries(
        {"podSelector": selector(("app", "tier"))},
        optional={
            "policyTypes": st.lists(st.sampled_from(["Ingress", "Egress"]), unique=True),
            "ingress": st.lists(item("from"), max_size=2),
            "egress": st.lists(item("to"), max_size=2),
        },
    )
    return st.builds(
        lambda n, s: {
            "kind": "NetworkPolicy",
            "apiVersion": "networking.k8s.io/v1",
            "metadata": {"namespace": n},
            "spec": s,
        },
        st.sampled_from(NAMESPACES),
        spec,
    )


def manifests() -> st.SearchStrategy[list[dict[str, Any]]]:
    one = cnp("CiliumNetworkPolicy") | cnp("CiliumClusterwideNetworkPolicy") | knp()
    return st.lists(one, max_size=4).map(
        lambda found: [m | {"metadata": m["metadata"] | {"name": f"p{n}"}} for n, m in enumerate(found)]
    )


def assert_agrees(cluster: Cluster, objects: list[dict[str, Any]], mode: str = "default") -> None:
    """Every pod, every peer, both directions, all probes."""
    for subject in PODS:
        for peer in PEERS:
            for direction in ("ingress", "egress"):
                for protocol, port in PROBES:
                    actual = cluster.verdict(subject, peer, direction, protocol, port)
                    wanted = judge(objects, GROUPS, subject, peer, direction, protocol, port, mode)
                    assert actual == wanted, (subject["labels"], peer, direction, protocol, port)


SLOW = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(manifests(), st.sampled_from(["default", "always", "never"]))
def test_the_engine_agrees_with_the_oracle(objects: list[dict[str, Any]], mode: str) -> None:
    cluster = Cluster(PODS, EngineOptions(enable_policy=mode))
    cluster.apply(objects, GROUPS)
    assert_agrees(cluster, objects, mode)


@settings(SLOW, max_examples=60)
@given(manifests(), manifests())
def test_changing_policies_gives_what_starting_with_them_gives(
    before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    cluster = Cluster(PODS)
    cluster.apply(before, GROUPS)
    for manifest in before:
        cluster.engine.remove_policy(read_policy(manifest).key)
    cluster.apply(after)
    assert_agrees(cluster, after)


@settings(SLOW, max_examples=60)
@given(manifests(), st.permutations(range(len(PODS))))
def test_pods_that_come_after_their_policies_are_judged_alike(objects: list[dict[str, Any]], order: list[int]) -> None:
    cluster = Cluster([PODS[order[0]]])
    cluster.apply(objects)
    for group in GROUPS:
        cluster.apply([], [group])
    late = Cluster([PODS[n] for n in order])
    late.apply(objects, GROUPS)
    for n in order[1:]:
        cluster.identity(PODS[n])
    subject = PODS[order[0]]
    for peer in PEERS:
        if peer["labels"] == ["reserved:init"]:
            continue
        for protocol, port in PROBES:
            wanted = judge(objects, GROUPS, subject, peer, "ingress", protocol, port)
            assert cluster.verdict(subject, peer, "ingress", protocol, port) == wanted
            assert late.verdict(subject, peer, "ingress", protocol, port) == wanted


@pytest.mark.parametrize("mode", ["default", "always", "never"])
def test_without_policies_only_always_and_init_are_enforced(mode: str) -> None:
    cluster = Cluster(PODS, EngineOptions(enable_policy=mode))
    assert_agrees(cluster, [], mode)
