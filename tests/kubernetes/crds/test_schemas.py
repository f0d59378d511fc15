"""Manifests through a real API server: nothing of what Cilium has is removed, and what it calls invalid is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ciliate.review import Severity
from ciliate_policy.objects import review

from tests.kubernetes.crds.manifests import WHOLE, Manifest, named, rule
from tests.kubernetes.crds.registered import NAMES
from tests.kubernetes.kubectl import Kubectl


def covered(found: Any, wanted: Any, path: str = "") -> list[str]:
    """What of a manifest is not in an object."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return [path]
        return [one for key, value in wanted.items() for one in covered(found.get(key), value, f"{path}.{key}")]
    if isinstance(wanted, list) and isinstance(found, list) and len(found) == len(wanted):
        pairs = enumerate(zip(found, wanted, strict=True))
        return [one for number, (a, b) in pairs for one in covered(a, b, f"{path}[{number}]")]
    return [] if found == wanted else [path]


def test_the_api_server_finds_nothing_wrong_with_the_definitions(kubectl: Kubectl) -> None:
    for obj in kubectl.items("get", "crd", *NAMES):
        conditions = {one["type"]: one["status"] for one in obj["status"]["conditions"]}
        assert conditions == {"NamesAccepted": "True", "Established": "True"}, obj["metadata"]["name"]


@pytest.mark.parametrize("manifest", WHOLE, ids=lambda one: f"{one['kind']}-{one['apiVersion'][10:]}")
def test_a_manifest_that_uses_everything_comes_back_whole(kubectl: Kubectl, manifest: Manifest) -> None:
    what = (
        f"{manifest['kind'].lower()}.{manifest['apiVersion'].partition('/')[2]}.cilium.io",
        manifest["metadata"]["name"],
    )
    try:
        kubectl("create", "--validate=strict", "-f", "-", stdin=json.dumps(manifest))
        found = kubectl.json("get", *what, "-n", "default")
        wanted = {
            key: value for key, value in manifest.items() if key != "status" or manifest["kind"] == "CiliumEndpoint"
        }
        assert covered(found, wanted) == []
    finally:
        kubectl("delete", *what, "-n", "default", "--ignore-not-found")


def ingress(**element: Any) -> Manifest:
    return named("CiliumNetworkPolicy", spec={"endpointSelector": {}, "ingress": [element]})


def egress(**element: Any) -> Manifest:
    return named("CiliumNetworkPolicy", spec={"endpointSelector": {}, "egress": [element]})


def port(**more: Any) -> Manifest:
    return ingress(toPorts=[{"ports": [more]}])


def selecting(selector: Any) -> Manifest:
    return named("CiliumNetworkPolicy", spec={"endpointSelector": selector, "ingress": [{}]})


HTTP = [{"port": "80", "protocol": "TCP"}]
INVALID: dict[str, Manifest] = {
    "spec": named("CiliumNetworkPolicy"),
    "spec.endpointSelector": named("CiliumNetworkPolicy", spec={"ingress": [{}]}),
    "spec.nodeSelector": named("CiliumNetworkPolicy", spec={"nodeSelector": {}, "ingress": [{}]}),
    "spec: both selectors": named(
        "CiliumClusterwideNetworkPolicy", namespace="",
        spec={"endpointSelector": {}, "nodeSelector": {}, "ingress": [{}]},
    ),
    "spec: no section": named("CiliumNetworkPolicy", spec={"endpointSelector": {}}),
    "spec: empty sections": named("CiliumNetworkPolicy", spec={"endpointSelector": {}, "ingress": [], "egress": []}),
    "specs[0]": named("CiliumNetworkPolicy", specs=[{"endpointSelector": {}}]),
    "two kinds of peers": ingress(fromEndpoints=[{}], fromCIDR=["10.0.0.0/8"]),
    "two kinds of peers (egress)": egress(toFQDNs=[{"matchName": "a"}], toEntities=["world"]),
    "ports and icmps": ingress(toPorts=[{"ports": HTTP}], icmps=[{"fields": [{"type": 8}]}]),
    "fromCIDR": ingress(fromCIDR=["10.0.0.0/33"]),
    "fromCIDR: a name": ingress(fromCIDR=["example.org"]),
    "fromCIDRSet: bare": ingress(fromCIDRSet=[{"cidr": "10.0.0.1"}]),
    "fromCIDRSet: two sources": ingress(fromCIDRSet=[{"cidr": "10.0.0.0/8", "cidrGroupRef": "g"}]),
    "fromCIDRSet: none": ingress(fromCIDRSet=[{"except": ["10.0.0.0/8"]}]),
    "fromEntities": ingress(fromEntities=["everybody"]),
    "fromRequires": ingress(fromRequires=[{}]),
    "toRequires": egress(toRequires=[{}]),
    "port: number": port(port=80),
    "port: 65536": port(port="65536"),
    "port: name": port(port="no_name"),
    "port: negative": port(port="-1"),
    "endPort": port(port="80", endPort=70000),
    "protocol": port(port="80", protocol="tcp"),
    "41 ports": ingress(toPorts=[{"ports": [{"port": str(n)} for n in range(1, 42)]}]),
    "icmp: type": ingress(icmps=[{"fields": [{"type": 256}]}]),
    "icmp: text": ingress(icmps=[{"fields": [{"type": "256"}]}]),
    "icmp: name": ingress(icmps=[{"fields": [{"type": "EchoEcho"}]}]),
    "icmp: family": ingress(icmps=[{"fields": [{"family": "IPv5", "type": 8}]}]),
    "icmp: no type": ingress(icmps=[{"fields": [{"family": "IPv4"}]}]),
    "41 icmps": ingress(icmps=[{"fields": [{"type": n} for n in range(41)]}]),
    "authentication: none": ingress(authentication={}),
    "authentication": ingress(authentication={"mode": "maybe"}),
    "two kinds of L7 rules": egress(toPorts=[{"ports": HTTP, "rules": {"http": [{}], "dns": [{"matchName": "a"}]}}]),
    "log": named("CiliumNetworkPolicy", spec={"endpointSelector": {}, "ingress": [{}], "log": {"value": "x" * 33}}),
    "log: unprintable": named(
        "CiliumNetworkPolicy", spec={"endpointSelector": {}, "ingress": [{}], "log": {"value": "a\u0007b"}}
    ),
    "label value": selecting({"matchLabels": {"app": "a b"}}),
    "label value too long": selecting({"matchLabels": {"app": "a" * 64}}),
    "operator": selecting({"matchExpressions": [{"key": "a", "operator": "Equals", "values": ["b"]}]}),
    "no operator": selecting({"matchExpressions": [{"key": "a"}]}),
    "serverNames: empty name": ingress(toPorts=[{"ports": HTTP, "serverNames": [""]}]),
}  # fmt: skip
"""What both Cilium and our own reader call invalid."""


@pytest.mark.parametrize("what", INVALID)
def test_what_is_invalid_is_refused_by_the_api_server_as_by_ciliate_apply(kubectl: Kubectl, what: str) -> None:
    done = kubectl.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(INVALID[what]))
    assert done.returncode != 0, what
    assert "is invalid" in done.stderr and "spec" in done.stderr, done.stderr
    assert any(finding.severity is Severity.INVALID for finding in review(INVALID[what])), what


@pytest.mark.parametrize("what", ["spec.ingress[0].fromEndpoint", "spec.ingress[0].toPorts[0].rules.grpc"])
def test_a_misspelt_field_is_refused_by_its_path(kubectl: Kubectl, what: str) -> None:
    wrong = ingress(fromEndpoint=[{}]) if what.endswith("fromEndpoint") else ingress(toPorts=[{"rules": {"grpc": []}}])
    done = kubectl.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(wrong))
    assert f'unknown field "{what}"' in done.stderr


OTHERS: dict[str, Manifest] = {
    "an identity's name is its number": {
        "apiVersion": "cilium.io/v2", "kind": "CiliumIdentity", "metadata": {"name": "web"}, "security-labels": {},
    },
    "security-labels": {"apiVersion": "cilium.io/v2", "kind": "CiliumIdentity", "metadata": {"name": "300"}},
    "externalCIDRs": named("CiliumCIDRGroup", namespace="", spec={"externalCIDRs": ["10.0.0.0"]}),
    "interface and egressIP exclude each other": named(
        "CiliumEgressGatewayPolicy", namespace="",
        spec={
            "selectors": [], "destinationCIDRs": [],
            "egressGateway": {"nodeSelector": {}, "interface": "eth0", "egressIP": "192.0.2.1"},
        },
    ),
    "podCIDRs": named("CiliumNode", namespace="", spec={"ipam": {"podCIDRs": "10.0.0.0/24"}}),
    "pre-allocate": named("CiliumNode", namespace="", spec={"ipam": {"pre-allocate": -1}}),
    "status.state": named("CiliumEndpoint", status={"state": "happy"}),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_nonsense_in_other_kinds_is_refused_and_named(kubectl: Kubectl, what: str) -> None:
    done = kubectl.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(OTHERS[what]))
    assert done.returncode != 0 and what in done.stderr, done.stderr


def test_what_stands_for_something_never_changes(kubectl: Kubectl) -> None:
    identity = {"apiVersion": "cilium.io/v2", "kind": "CiliumIdentity", "metadata": {"name": "4712"}}
    kubectl.apply({**identity, "security-labels": {"k8s:app": "web"}})
    try:
        done = kubectl.run("apply", "-f", "-", stdin=json.dumps({**identity, "security-labels": {"k8s:app": "api"}}))
        assert "labels never change" in done.stderr
        kubectl("annotate", "ciliumidentity", "4712", "io.cilium.heartbeat=now")
    finally:
        kubectl("delete", "ciliumidentity", "4712")


def test_a_policy_of_two_thousand_elements_is_taken_quickly(kubectl: Kubectl) -> None:
    elements = [
        {"fromCIDRSet": [{"cidr": f"10.{n // 250}.{n % 250}.0/24"}], "toPorts": [{"ports": HTTP}]} for n in range(2000)
    ]
    big = named("CiliumNetworkPolicy", spec=rule(ingress=elements))
    done = kubectl.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(big))
    assert done.returncode == 0, done.stderr


def test_kubectl_prints_columns(kubectl: Kubectl) -> None:
    shown = [one for one in WHOLE if one["kind"] in ("CiliumNode", "CiliumEndpoint", "CiliumIdentity")]
    kubectl.apply(*shown, *(one for one in WHOLE if one["kind"] == "CiliumNetworkPolicy"))
    try:
        lines = {name: kubectl("get", name, "-n", "default").splitlines() for name in ("cep", "cn", "ciliumid", "cnp")}
        assert lines["cep"][0].split("  ")[0] == "NAME"
        assert "SECURITY IDENTITY" in lines["cep"][0] and "ENDPOINT STATE" in lines["cep"][0]
        assert lines["cep"][1].split() == ["all", "4711", "ready", "10.0.0.9", "fd00::9"]
        wide = kubectl("get", "cep", "-n", "default", "-o", "wide").splitlines()
        assert "INGRESS ENFORCEMENT" in wide[0]
        assert lines["cn"][0].split() == ["NAME", "CILIUMINTERNALIP", "INTERNALIP", "AGE"]
        assert lines["cn"][1].split()[:3] == ["all", "10.0.0.1", "fd00::1"]
        assert lines["ciliumid"][0].split() == ["NAME", "NAMESPACE", "AGE"]
        assert lines["cnp"][0].split() == ["NAME", "AGE", "VALID", "ENFORCED"]
        assert "ciliumnetworkpolicy.cilium.io/all" in kubectl("get", "cilium", "-n", "default", "-o", "name")
    finally:
        kubectl.delete(*shown, *(one for one in WHOLE if one["kind"] == "CiliumNetworkPolicy"))
