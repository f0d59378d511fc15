"""What is wrong with a manifest is said with its path; what is not enforced yet is named; nothing raises."""

# ruff: noqa: E501 -- a table reads best with a case a line
from __future__ import annotations

from typing import Any

import pytest
from ciliate.review import Severity
from ciliate_policy.objects import read_cidr_group, read_policy, review
from ciliate_policy.ports import range_prefixes
from ciliate_policy.rules import PortMatch
from hypothesis import given, settings
from hypothesis import strategies as st


def cnp(spec: Any, **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p", "namespace": "default", "uid": "u", "generation": 3},
        "spec": spec,
    } | more


def ingress(*elements: Any, section: str = "ingress", **more: Any) -> dict[str, Any]:
    return cnp({"endpointSelector": {}, section: list(elements)} | more)


def knp(spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": spec,
    }


def ports(*items: Any, **more: Any) -> dict[str, Any]:
    return {"toPorts": [{"ports": list(items)} | more]}


INVALID = [
    (
        ingress({}, {}, ports({"port": "80"}, {"port": "70000"})),
        "spec.ingress[2].toPorts[0].ports[1].port: 70000 is over 65535; ports are 0 to 65535",
    ),
    (ingress(ports({"port": 80})), 'spec.ingress[0].toPorts[0].ports[0].port: must be a string: write "80"'),
    (ingress(ports({"port": 70000})), "spec.ingress[0].toPorts[0].ports[0].port: 70000 is over 65535"),
    (ingress(ports({"port": "-1"})), "spec.ingress[0].toPorts[0].ports[0].port: -1 is negative"),
    (ingress(ports({"port": "a b"})), "spec.ingress[0].toPorts[0].ports[0].port: 'a b' is neither"),
    (ingress(ports({"port": "80", "endPort": 79})), "spec.ingress[0].toPorts[0].ports[0].endPort: 79 is below the port 80"),
    (ingress(ports({"port": "http", "endPort": 90})), "spec.ingress[0].toPorts[0].ports[0].endPort: needs a numeric port"),
    (ingress(ports({"port": "80", "endPort": 99999})), "spec.ingress[0].toPorts[0].ports[0].endPort: 99999 is over 65535"),
    (ingress(ports({"protocol": "TCP"})), "spec.ingress[0].toPorts[0].ports[0]: has no port"),
    (ingress(ports({"port": "80", "protocol": "TPC"})), "spec.ingress[0].toPorts[0].ports[0].protocol: 'TPC' is unknown"),
    (ingress(ports(*[{"port": "80"}] * 41)), "spec.ingress[0].toPorts[0].ports: has 41 elements; 40 are allowed"),
    (ingress({"fromCIDR": ["10.0.0.0/33"]}), "spec.ingress[0].fromCIDR[0]: '10.0.0.0/33' is not a CIDR"),
    (ingress({"fromCIDR": ["10.0.0.256"]}), "spec.ingress[0].fromCIDR[0]: '10.0.0.256' is not a CIDR"),
    (ingress({"fromCIDRSet": [{"cidr": "10.0.0.1"}]}), "spec.ingress[0].fromCIDRSet[0].cidr: '10.0.0.1' has no prefix length"),
    (
        ingress({"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}]}),
        "spec.ingress[0].fromCIDRSet[0].except[0]: 11.0.0.0/8 is not inside 10.0.0.0/8",
    ),
    (
        ingress({"fromCIDRSet": [{"cidr": "10.0.0.0/8", "cidrGroupRef": "a"}]}),
        "spec.ingress[0].fromCIDRSet[0]: needs exactly one of cidr, cidrGroupRef, cidrGroupSelector",
    ),
    (
        ingress({"fromEndpoints": [{}], "fromEntities": ["world"]}),
        "spec.ingress[0]: has fromEndpoints and fromEntities, which exclude each other",
    ),
    (ingress({"toEndpoints": [{}]}), "spec.ingress[0].toEndpoints: there is no such field; did you mean fromEndpoints?"),
    (ingress({"fromEntities": ["wrold"]}), "spec.ingress[0].fromEntities[0]: 'wrold' is unknown"),
    (ingress({"fromRequires": [{}]}), "spec.ingress[0].fromRequires: is no longer supported"),
    (ingress({"icmps": [{"fields": [{"type": 256}]}]}), "spec.ingress[0].icmps[0].fields[0].type: 256 is not from 0 to 255"),
    (ingress({"icmps": [{"fields": [{"type": "Ping"}]}]}), "spec.ingress[0].icmps[0].fields[0].type: 'Ping' is not a type"),
    (ingress({"icmps": [{"fields": [{"type": 8}]}]} | ports({"port": "1"})), "spec.ingress[0]: has toPorts and icmps"),
    (ingress(None), "spec.ingress[0]: must be an object, not null"),
    (ingress("x"), "spec.ingress[0]: must be an object, not a string"),
    (cnp({"endpointSelector": {}, "ingress": {}}), "spec: says nothing"),
    (cnp({"endpointSelector": {}, "ingress": {"a": 1}}), "spec.ingress: must be a list, not an object"),
    (cnp({"endpointSelector": {}}), "spec: says nothing"),
    (cnp({"ingress": [{}]}), "spec: needs exactly one of endpointSelector and nodeSelector"),
    (cnp({"nodeSelector": {}, "ingress": [{}]}), "spec.nodeSelector: is for CiliumClusterwideNetworkPolicy only"),
    (cnp([]), "spec: must be an object, not a list"),
    (cnp(None), "spec: CiliumNetworkPolicy has neither spec nor specs"),
    (ingress({}, endpointSelector={"matchLabel": {}}), "spec.endpointSelector.matchLabel: there is no such field"),
    (ingress({}, endpointSelector={"matchLabels": {"a": 1}}), 'spec.endpointSelector.matchLabels.a: must be a string, not a number: write "1"'),
    (ingress({}, endpointSelector={"matchLabels": {"a": "b c"}}), "spec.endpointSelector.matchLabels.a: 'b c' is not a label's value"),
    (
        ingress({}, endpointSelector={"matchExpressions": [{"key": "a", "operator": "In"}]}),
        "spec.endpointSelector.matchExpressions[0]: operator In needs at least one of values",
    ),
    (ingress({}, log={"value": "x" * 33}), "spec.log.value: must have at most 32"),
    (ingress({}, enableDefaultDeny={"ingress": "no"}), "spec.enableDefaultDeny.ingress: must be true or false"),
    (ingress({"authentication": {"mode": "maybe"}}), "spec.ingress[0].authentication.mode: 'maybe' is unknown"),
    (ingress(ports({"port": "53"}, rules={"dns": [{}]})), "spec.ingress[0].toPorts[0].rules: dns rules are for egress only"),
    (ingress(ports({"port": "80", "protocol": "UDP"}, rules={"http": [{}]})), "spec.ingress[0].toPorts[0].rules: http rules need protocol TCP"),
    (ingress(ports({"port": "80"}, rules={"http": [{}], "dns": [{}]})), "spec.ingress[0].toPorts[0].rules: has dns and http"),
    (ingress(ports({"port": "80"}, rules={"http": [{}]}), section="ingressDeny"), "spec.ingressDeny[0].toPorts[0].rules: there is no such field"),
    (knp({"podSelector": {}, "ingress": [{"ports": [{"port": 70000}]}]}), "spec.ingress[0].ports[0].port: 70000 is over 65535"),
    (knp({"podSelector": {}, "ingress": [{"ports": [{"port": "80"}]}]}), "spec.ingress[0].ports[0].port: '80' is not a port's name"),
    (knp({"podSelector": {}, "ingress": [{"from": [{}]}]}), "spec.ingress[0].from[0]: is empty"),
    (knp({"podSelector": {}, "egress": [{"from": []}]}), "spec.egress[0].from: there is no such field"),
    (
        knp({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "::/0"}, "podSelector": {}}]}]}),
        "spec.ingress[0].from[0]: has ipBlock and a selector",
    ),
    (knp({"podSelector": {}, "policyTypes": ["ingress"]}), "spec.policyTypes[0]: 'ingress' is unknown; use one of Egress, Ingress"),
]  # fmt: skip


@pytest.mark.parametrize(("manifest", "message"), INVALID, ids=[text for _, text in INVALID])
def test_an_invalid_manifest_is_refused_with_the_path(manifest: dict[str, Any], message: str) -> None:
    policy = read_policy(manifest)
    assert message in policy.invalid
    assert policy.rules == ()
    assert any(f"{found.path}: {found.message}".startswith(message) for found in review(manifest))


def test_all_problems_are_named_at_once() -> None:
    policy = read_policy(ingress({"fromCIDR": ["x/8"]}, ports({"port": "99999"}), {"fromEntities": ["nobody"]}))
    assert len(policy.findings) == 3


def test_specs_have_their_own_paths() -> None:
    good: dict[str, Any] = {"endpointSelector": {}, "ingress": [{}]}
    manifest = cnp(good, specs=[good, {"endpointSelector": {}, "egress": [{"toCIDR": ["x/1"]}]}])
    assert read_policy(manifest).invalid.startswith("specs[1].egress[0].toCIDR[0]: 'x/1' is not a CIDR")


UNSUPPORTED = [
    ("egress", {"toFQDNs": [{"matchName": "a.b"}]}, "toFQDNs"),
    ("egress", {"toServices": [{"k8sService": {"serviceName": "x"}}]}, "toServices"),
    ("egress", {"toGroups": [{"aws": {}}]}, "toGroups"),
    ("ingress", {"fromGroups": [{"aws": {}}]}, "fromGroups"),
    ("ingress", {"fromNodes": [{}]}, "fromNodes"),
    ("ingress", ports({"port": "80", "protocol": "TCP"}, rules={"http": [{"method": "GET"}]}), "toPorts[0].rules.http"),
    ("egress", ports({"port": "53"}, rules={"dns": [{"matchPattern": "*"}]}), "toPorts[0].rules.dns"),
    ("ingress", ports({"port": "80"}, terminatingTLS={"secret": {"name": "x"}}), "toPorts[0].terminatingTLS"),
    ("egress", ports({"port": "443"}, serverNames=["a.b"]), "toPorts[0].serverNames"),
    ("egress", ports({"port": "443"}, listener={"name": "x"}), "toPorts[0].listener"),
    ("ingress", {"authentication": {"mode": "required"}}, "authentication"),
    ("ingress", ports({"port": "0", "protocol": "VRRP"}), "toPorts[0].ports[0].protocol"),
]  # fmt: skip


@pytest.mark.parametrize(("section", "element", "path"), UNSUPPORTED, ids=[p for *_, p in UNSUPPORTED])
def test_what_is_not_enforced_selects_nothing_and_still_denies_by_default(
    section: str, element: dict[str, Any], path: str
) -> None:
    policy = read_policy(ingress(element, section=section))
    assert policy.invalid == ""
    assert policy.unsupported == (f"spec.{section}[0].{path}",)
    (rule,) = policy.rules
    assert rule.default_deny == (section == "ingress", section == "egress")
    made = rule.elements[0]
    if "VRRP" not in str(element):
        assert made.peers == () or made.ports == ()


def test_node_policies_are_named_and_select_nothing() -> None:
    manifest = ingress({}) | {"kind": "CiliumClusterwideNetworkPolicy", "metadata": {"name": "p"}}
    manifest["spec"] = {"nodeSelector": {}, "ingress": [{}]}
    policy = read_policy(manifest)
    assert (policy.unsupported, policy.rules[0].subject) == (("spec.nodeSelector",), None)


def test_findings_have_a_severity() -> None:
    (found,) = review(ingress({"toFQDNs": [{"matchName": "x"}]}, section="egress"))
    assert found.severity is Severity.UNSUPPORTED


def test_objects_of_others_are_not_reviewed() -> None:
    assert review({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {}}) == []


def test_a_bad_member_of_a_group_is_named_and_the_others_stay() -> None:
    group, findings = read_cidr_group({"metadata": {"name": "g"}, "spec": {"externalCIDRs": ["10.0.0.0/8", "x"]}})
    assert [str(network) for network in group.networks] == ["10.0.0.0/8"]
    assert [found.path for found in findings] == ["spec.externalCIDRs[1]"]


def test_port_names_are_lowered_and_bases_understood() -> None:
    policy = read_policy(ingress(ports({"port": "HTTP", "protocol": "TCP"}, {"port": "0x50", "protocol": "TCP"})))
    assert policy.rules[0].elements[0].ports == (PortMatch(6, 0, 65535, "http"), PortMatch(6, 80, 80))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["ingress", "egress", "fromEndpoints", "toPorts", "ports", "port", "matchLabels", "toCIDRSet", "cidr", "except",
             "endpointSelector", "rules", "icmps", "fields", "type", "from", "podSelector", "x"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    json_values,
    st.sampled_from(["CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy", "NetworkPolicy"]),
    json_values,
)
def test_no_manifest_makes_the_reader_fail(spec: Any, kind: str, metadata: Any) -> None:
    manifest = {"apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata, "spec": spec, "specs": [spec]}
    policy = read_policy(manifest)
    assert policy.rules == () or not policy.invalid


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_a_range_is_covered_exactly_by_its_prefixes(one: int, other: int) -> None:
    first, last = min(one, other), max(one, other)
    covered: list[int] = []
    for port, length in range_prefixes(first, last):
        assert port % (1 << (16 - length)) == 0
        covered += [port, port + (1 << (16 - length)) - 1]
    assert covered[0] == first and covered[-1] == last
    assert all(covered[i] + 1 == covered[i + 1] for i in range(1, len(covered) - 1, 2))
