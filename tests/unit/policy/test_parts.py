"""The engine's parts: labels, regions, ipcache, rule sets, entries."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest
from ciliate.model.base import IPNetwork
from ciliate.model.identity import LOCAL_SCOPE
from ciliate.model.ipcache import IpcacheClaim
from ciliate.model.policy import DEFAULT_DENY, Direction, Rule
from ciliate_policy.changes import LocalEndpoint
from ciliate_policy.cidrs import CidrIndex, make_prefix, prefix_label
from ciliate_policy.engine import Engine
from ciliate_policy.entries import Content, encode
from ciliate_policy.identities import LocalIdentities
from ciliate_policy.ipcache import Ipcache, lookup
from ciliate_policy.labels import Label, LabelFilter, parse_label
from ciliate_policy.objects import read_policy
from ciliate_policy.resolve import ALLOW, DENY, PolicyValue
from ciliate_policy.rule_sets import RuleSets, first_rules
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("label", "relevant"),
    [
        ("k8s:app=web", True),
        ("k8s:io.kubernetes.pod.namespace=default", True),
        ("k8s:io.cilium.k8s.namespace.labels.team=a", True),
        ("k8s:io.cilium.k8s.policy.cluster=c", True),
        ("k8s:io.cilium.k8s.policy.serviceaccount=s", True),
        ("k8s:app.kubernetes.io/name=x", True),
        ("reserved:host", True),
        ("k8s:io.kubernetes.other=x", False),
        ("k8s:kubernetes.io/arch=x", False),
        ("k8s:topology.kubernetes.io/zone=x", False),
        ("k8s:statefulset.kubernetes.io/pod-name=x", False),
        ("k8s:pod-template-hash=x", False),
        ("k8s:controller-revision-hash=x", False),
        ("k8s:k8s.io/x=y", False),
        ("k8s:etcd_node=y", False),
    ],
)
def test_the_default_label_filter(label: str, relevant: bool) -> None:
    assert LabelFilter().is_relevant(parse_label(label)) is relevant


def test_a_users_entry_makes_an_allow_list_and_a_negated_one_does_not() -> None:
    labels = ("k8s:app=web", "k8s:tier=front", "k8s:io.kubernetes.pod.namespace=default")
    namespace = "k8s:io.kubernetes.pod.namespace=default"
    assert LabelFilter(["k8s:app"]).identity_labels(labels) == ("k8s:app=web", namespace)
    assert LabelFilter(["!tier"]).identity_labels(labels) == ("k8s:app=web", namespace)
    with pytest.raises(ValueError, match="is not a regular expression"):
        LabelFilter(["("])


def test_label_texts() -> None:
    assert parse_label("k8s:a=b:c=d") == Label("k8s", "a", "b:c=d")
    assert parse_label("$host") == Label("reserved", "host", "")
    assert str(Label("reserved", "host", "")) == "reserved:host"
    assert parse_label("app=x", "any") == Label("any", "app", "x")


def test_cidr_labels_are_ciliums() -> None:
    assert prefix_label(ipaddress.ip_network("::1/128")) == "cidr:0--1/128"
    assert prefix_label(ipaddress.ip_network("fd00::/8")) == "cidr:fd00--0/8"
    assert prefix_label(ipaddress.ip_network("10.0.0.0/8")) == "cidr:10.0.0.0/8"


def networks() -> st.SearchStrategy[IPNetwork]:
    return st.builds(
        lambda address, length: ipaddress.ip_network((address << 24, length), strict=False),
        st.integers(0, 255),
        st.integers(0, 12),
    )


@given(st.lists(st.tuples(networks(), st.lists(networks(), max_size=2)), max_size=6), st.integers(0, 255), st.data())
def test_regions_tell_which_selectors_cover_an_address(
    members: list[tuple[IPNetwork, list[IPNetwork]]], byte: int, data: st.DataObject
) -> None:
    index = CidrIndex()
    for number, (network, excepts) in enumerate(members):
        index.put(f"s{number}", [(network, tuple(excepts))])
    for gone in data.draw(st.sets(st.integers(0, 5))):
        index.discard(f"s{gone}")
        members = [m if n != gone else (ipaddress.ip_network("::/0"), []) for n, m in enumerate(members)]
    address = ipaddress.ip_address(byte << 24)
    inside = [make_prefix(n) for n, e in members for n in (n, *e) if n.version == 4 and address in n]
    inside = [prefix for prefix in inside if prefix in index]
    wanted = {
        f"s{number}"
        for number, (network, excepts) in enumerate(members)
        if network.version == 4 and address in network and not any(address in one for one in excepts)
    }
    found = index.cover(max(inside, key=lambda p: p[2])) if inside else frozenset()
    assert found == wanted


def test_local_identities_outlive_a_restart_and_are_not_given_out_anew_at_once() -> None:
    first = LocalIdentities()
    a, b = first.allocate(("cidr:a",)), first.allocate(("cidr:b",))
    again = LocalIdentities(first.rows)
    assert (again.allocate(("cidr:b",)), again.allocate(("cidr:a",))) == (b, a)
    again.free(b)
    assert again.allocate(("cidr:c",)) not in (a, b)


def claim(prefix: str, identity: int, unresolved: bool = False) -> IpcacheClaim:
    return IpcacheClaim(prefix=prefix, identity=identity, unresolved=unresolved)


def test_the_first_claimant_decides_and_the_next_takes_over() -> None:
    ipcache = Ipcache()
    ipcache.put("policy", claim("10.0.0.1/32", 99))
    ipcache.put("routing", claim("10.0.0.1/32", 6))
    ipcache.put("endpoints", claim("10.0.0.1/32", 256))
    ipcache.put("stranger", claim("10.0.0.2/32", 7))
    ipcache.merge()
    found = lookup(ipcache.entries, "10.0.0.1")
    assert found is not None and (found.identity, found.claimant) == (256, "endpoints")
    ipcache.remove("endpoints", "10.0.0.1/32")
    assert [entry.identity for entry in ipcache.merge().values() if entry] == [6]
    ipcache.remove("routing", "10.0.0.1/32")
    assert [entry.identity for entry in ipcache.merge().values() if entry] == [99]


def test_a_cidr_rule_does_not_make_an_unknown_pod_a_stranger() -> None:
    ipcache = Ipcache()
    ipcache.put("policy", claim("10.0.0.7/32", 16777217))
    ipcache.put("policy", claim("0.0.0.0/0", 9))
    ipcache.merge()
    ipcache.put("ipam", claim("10.0.0.0/24", 0, unresolved=True))
    ipcache.merge()
    found = lookup(ipcache.entries, "10.0.0.7")
    assert found is not None and found.unresolved
    ipcache.remove("ipam", "10.0.0.0/24")
    ipcache.merge()
    found = lookup(ipcache.entries, "10.0.0.7")
    assert found is not None and found.identity == 16777217


@pytest.mark.parametrize(("address", "identity"), [("fd00::1", 10), ("192.0.2.1", 9), ("fd00:0:0:1::5", 300)])
def test_ipcache_lookup_is_by_longest_prefix_in_both_families(address: str, identity: int) -> None:
    ipcache = Ipcache()
    for prefix, number in (("0.0.0.0/0", 9), ("::/0", 10), ("fd00:0:0:1::/64", 300)):
        ipcache.put("policy", claim(prefix, number))
    ipcache.merge()
    found = lookup(ipcache.entries, address)
    assert found is not None and found.identity == identity


def rule(name: str, index: int = 0) -> Rule:
    return Rule(kind="K", namespace="n", name=name, uid="u", generation=1, direction="ingress", index=index)


def test_rule_set_numbers_are_durable_whatever_the_order() -> None:
    sets = RuleSets()
    number = sets.number((rule("a"), rule("b")))
    assert sets.number((rule("b"), rule("a"))) == number >= 16
    other = sets.number((rule("a"),))
    again = RuleSets(sets.take_new())
    assert (again.number((rule("b"), rule("a"))), again.number((rule("a"),))) == (number, other)
    assert again.number((rule("new"),)) > max(number, other)
    assert [r.name for r in again.rules(1)] == ["allow-all"]


def test_of_many_policies_that_deny_by_default_the_first_are_named() -> None:
    def deny(number: int) -> Rule:
        return rule(f"p{number:03}", DEFAULT_DENY)

    assert first_rules([deny(2), deny(1)]) == (deny(1), deny(2))
    first = first_rules([deny(number) for number in range(99, -1, -1)])
    assert [one.name for one in first] == [*(f"p{number:03}" for number in range(16)), "and other policies"]
    sets = RuleSets()
    number = sets.default(Direction.INGRESS, first)
    assert sets.rules(number) == first
    assert [one.path for one in sets.rules(number)][-2:] == [
        "K n/p015 (default deny, ingress)",
        "and other policies (ingress)",
    ]
    assert [sets.default(direction, ()) for direction in Direction] == [2, 3]


def test_the_default_of_one_of_several_specs_says_which() -> None:
    obj = policy_of("p", {"endpointSelector": {}, "ingress": [{}]})
    obj["specs"] = [{"endpointSelector": {}, "egress": [{}]}]
    policy = read_policy(obj)
    paths = [[one and one.path for one in policy.default_rules(rule)] for rule in policy.rules]
    assert paths == [
        ["CiliumNetworkPolicy default/p (default deny, ingress)", None],
        [None, "CiliumNetworkPolicy default/p specs[0] (default deny, egress)"],
    ]


def test_numbers_that_the_kernel_may_still_use_are_not_given_anew_after_a_loss() -> None:
    assert RuleSets((), 70).number((rule("a"),)) == 71
    first = LOCAL_SCOPE.start
    assert LocalIdentities((), first + 5).allocate(("cidr:a",)) == first + 6
    assert LocalIdentities().allocate(("cidr:a",)) == first


def test_rule_sets_that_were_not_saved_are_offered_again() -> None:
    sets = RuleSets()
    number = sets.number((rule("a"),))
    sets.take_new()  # and then the disk was full
    sets.renew({1, 2, 3, 4})
    assert [row.id for row in sets.take_new()] == [number]


def test_entries_are_what_the_kernel_reads() -> None:
    profile = {
        (6, 80, 14): PolicyValue(ALLOW, (rule("a"),)),
        (0, 0, 0): PolicyValue(DENY, (rule("b"),), deny=True),
        (17, 0, 0): PolicyValue(ALLOW, (rule("a"),)),
    }
    keys, values = encode(7, Direction.EGRESS, {256: profile, 257: profile}, lambda rules: len(rules[0].name))
    assert len(keys) == 6
    assert keys[0].tobytes() == bytes.fromhex("5e00000007000000000100000106") + b"\x00\x50"
    assert [int(bits) for bits in values["prefixlen"][:3]] == [22, 0, 8]
    assert [int(length) for length in keys["prefixlen"][:3]] == [94, 72, 80]
    assert list(values["flags"][:3]) == [0, 1, 0]
    assert list(values["precedence"][:2]) == [0xFFFFFF01, 0xFFFFFFFF]


def test_content_that_is_the_same_is_recognised_in_any_order() -> None:
    profile = {(6, port, 16): PolicyValue(ALLOW, (rule("a"),)) for port in range(50)}
    keys, values = encode(7, Direction.INGRESS, {256: profile, 300: profile}, lambda _: 20)
    shuffled = np.random.default_rng(1).permutation(len(keys))
    content = Content(keys[shuffled], values[shuffled])
    assert content.equals(7, keys, values)
    values["rule_set"][5] = 21
    assert not content.equals(7, keys, values)
    assert not content.equals(8, keys, values)


def policy_of(name: str, spec: dict[str, object]) -> dict[str, object]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "default", "uid": name, "generation": 1},
        "spec": {"endpointSelector": {"matchLabels": {"app": "web"}}} | spec,
    }


def test_ten_thousand_rules_in_one_policy() -> None:
    engine = Engine()
    labels = ("k8s:app=web", "k8s:io.kubernetes.pod.namespace=default")
    engine.set_identity(256, labels)
    elements = [
        {
            "fromCIDR": [f"172.16.{n // 256}.{n % 256}/32"],
            "toPorts": [{"ports": [{"port": str(1 + n), "protocol": "TCP"}]}],
        }
        for n in range(10_000)
    ]
    policy = read_policy(policy_of("many", {"ingress": elements}))
    assert not policy.findings
    engine.set_endpoint(LocalEndpoint(1, 256))
    engine.set_policy(policy)
    engine.settle_all()
    resolved = engine.realised[1].ingress
    assert resolved.size == 10_001  # and allow-localhost
    prefix = make_prefix(ipaddress.ip_network("172.16.3.232/32"))
    found = resolved.lookup(engine.cidrs.regions[prefix], 6, 1001)
    assert found is not None and [r.index for r in found[2].rules] == [1000]


def test_contradictory_rules_deny_and_name_every_denying_rule() -> None:
    engine = Engine()
    engine.set_identity(256, ("k8s:app=web", "k8s:io.kubernetes.pod.namespace=default"))
    engine.set_endpoint(LocalEndpoint(1, 256))
    everybody = [{"fromEntities": ["all"]}]
    engine.set_policy(read_policy(policy_of("a", {"ingress": everybody, "ingressDeny": everybody})))
    engine.set_policy(read_policy(policy_of("b", {"ingressDeny": everybody})))
    engine.settle_all()
    found = engine.realised[1].ingress.lookup(256, 6, 80)
    assert found is not None and found[2].deny
    assert sorted((r.name, r.direction) for r in found[2].rules) == [("a", "ingressDeny"), ("b", "ingressDeny")]


def test_an_address_that_old_and_new_rules_allow_is_in_both_policies_until_the_old_one_is_let_go() -> None:
    engine = Engine()
    engine.set_identity(256, ("k8s:app=web", "k8s:io.kubernetes.pod.namespace=default"))
    engine.set_endpoint(LocalEndpoint(1, 256))
    prefix = make_prefix(ipaddress.ip_network("192.0.2.0/24"))
    engine.set_policy(read_policy(policy_of("a", {"ingress": [{"fromCIDR": ["192.0.2.0/24"]}]})))
    engine.settle_all()
    old = engine.realised[1].ingress
    engine.set_policy(read_policy(policy_of("a", {"ingress": [{"fromCIDR": ["192.0.2.0/24", "198.51.100.0/24"]}]})))
    for identity in list(engine.dirty):
        engine.settle(identity)
    new = engine.realised[1].ingress
    assert old is not new
    during = engine.cidrs.regions[prefix]
    assert old.lookup(during, 6, 80) and new.lookup(during, 6, 80)
    for _ in engine.release_retired(engine.retired):
        pass
    after = engine.cidrs.regions[prefix]
    assert after != during and new.lookup(after, 6, 80)
    assert not engine.in_use(old)
