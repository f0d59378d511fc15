"""Policy objects as the store gives them, read: the one door from manifests to rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ciliate.model.kinds import (
    CILIUM_CIDR_GROUP,
    CILIUM_CLUSTERWIDE_NETWORK_POLICY,
    CILIUM_NETWORK_POLICY,
    NETWORK_POLICY,
)
from ciliate.review import Finding

from ciliate_policy import cnp, knp
from ciliate_policy.peers import cidr
from ciliate_policy.rules import CidrGroup, Policy, PolicyKey, PolicyRule
from ciliate_policy.validation import Findings, InvalidFieldError, Node

POLICY_KINDS = (CILIUM_NETWORK_POLICY, CILIUM_CLUSTERWIDE_NETWORK_POLICY, NETWORK_POLICY)
_KINDS = {(kind.api_version.partition("/")[0], kind.kind): kind for kind in POLICY_KINDS}


LARGE = 200
"""Rule elements from which on an object is to be read in a thread: 5 ms."""


def policy_key(obj: Mapping[str, Any]) -> PolicyKey:
    """Which policy an object is."""
    metadata = _metadata(obj)
    return PolicyKey(str(obj.get("kind", "")), str(metadata.get("namespace") or ""), str(metadata.get("name", "")))


def _metadata(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = obj.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _generation(metadata: Mapping[str, Any]) -> int:
    generation = metadata.get("generation", 0)
    return generation if isinstance(generation, int) else 0


def read_policy(obj: Mapping[str, Any], cluster: str = "default") -> Policy:
    """A policy object's rules and what there is to say about it. Never raises: an invalid one has no rules."""
    findings = Findings()
    key = policy_key(obj)
    metadata = _metadata(obj)
    uid, generation = str(metadata.get("uid", "")), _generation(metadata)
    rules: list[PolicyRule] = []
    root = Node(obj, "", findings)
    with findings.collect():
        if key.kind == NETWORK_POLICY.kind:
            rules = knp.read_rules(root, key, uid, generation)
        else:
            rules = cnp.read_rules(root, obj, key, uid, generation, cluster)
    found = tuple(dict.fromkeys(findings.found))
    return Policy(key, uid, generation, () if findings.refused else tuple(rules), found)


def read_cidr_group(obj: Mapping[str, Any]) -> tuple[CidrGroup, tuple[Finding, ...]]:
    """A CiliumCIDRGroup and what is wrong with it. A bad CIDR is left out and named; the good ones stay."""
    findings = Findings()
    metadata = _metadata(obj)
    labels = tuple(sorted(f"cidrgroup:{key}={value}" for key, value in (metadata.get("labels") or {}).items()))
    networks: list[Any] = []
    try:
        fields = Node(obj.get("spec") or {}, "spec", findings).fields({"externalCIDRs"})
        if "externalCIDRs" in fields:
            networks = fields["externalCIDRs"].each(cidr)
    except InvalidFieldError as error:
        findings.found.append(error.finding)
    return CidrGroup(str(metadata.get("name", "")), labels, tuple(dict.fromkeys(networks))), tuple(findings.found)


def is_large(obj: Mapping[str, Any]) -> bool:
    """Whether reading it would hold the loop for longer than a slice."""
    specs = obj.get("specs")
    lists = [obj.get("spec"), *(specs if isinstance(specs, list) else ())]
    sizes = (len(part) for spec in lists if isinstance(spec, dict) for part in spec.values() if isinstance(part, list))
    return sum(sizes) > LARGE


def review(obj: Mapping[str, Any]) -> list[Finding]:
    """What the author of an object should know before it is applied: pure, and nothing for kinds of others."""
    group = str(obj.get("apiVersion", "")).partition("/")[0]
    if (group, obj.get("kind")) in _KINDS:
        return list(read_policy(obj).findings)
    if (group, obj.get("kind")) == (CILIUM_CIDR_GROUP.api_version.partition("/")[0], CILIUM_CIDR_GROUP.kind):
        return list(read_cidr_group(obj)[1])
    return []
