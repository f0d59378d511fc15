"""CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy and CiliumCIDRGroup.

What these schemas refuse, Cilium refuses; what they can't say, the operator says in a policy's status: an exception
outside its CIDR, a range of ports that ends before it begins, what L7 rules ask of their ports.
"""

from __future__ import annotations

from ciliate_kubernetes.crds.definition import AGE, Column, Definition, Version
from ciliate_kubernetes.crds.kinds.policy_ports import icmp_rule, name_match, port_rule
from ciliate_kubernetes.crds.schema import (
    ATOMIC,
    Schema,
    array,
    boolean,
    conditions,
    exactly_one,
    fields,
    label_selector,
    mapping,
    one_filled_at_most,
    rule,
    string,
    time,
)

ENTITIES = (
    "all", "world", "world-ipv4", "world-ipv6", "cluster", "cluster-mesh", "host", "init", "ingress", "unmanaged",
    "remote-node", "health", "none", "kube-apiserver",
)  # fmt: skip
SECTIONS = ("ingress", "ingressDeny", "egress", "egressDeny")
CIDR = string(format="cidr")
CIDR_OR_ADDRESS = string(anyOf=[{"format": "cidr"}, {"format": "ipv4"}, {"format": "ipv6"}])


def cidr_rule() -> Schema:
    """An element of fromCIDRSet and toCIDRSet."""
    sources = {"cidr": CIDR, "cidrGroupRef": string(most=253), "cidrGroupSelector": label_selector()}
    return fields({**sources, "except": array(CIDR)}, **exactly_one(sources))


def groups() -> Schema:
    """An element of fromGroups and toGroups."""
    aws = {
        "labels": mapping(string()),
        "region": string(),
        "securityGroupsIds": array(string()),
        "securityGroupsNames": array(string()),
    }
    return fields({"aws": fields(aws)})


def service() -> Schema:
    """An element of toServices."""
    by_name = fields({"serviceName": string(), "namespace": string()})
    by_selector = fields({"selector": label_selector(), "namespace": string()}, required=("selector",))
    return fields({"k8sService": by_name, "k8sServiceSelector": by_selector})


def authentication() -> Schema:
    """Of allow rules."""
    return fields({"mode": string(one_of=("disabled", "required", "test-always-fail"))}, required=("mode",))


def _element(direction: str, deny: bool) -> Schema:
    """An element of one of the four lists of a rule."""
    side = "from" if direction == "ingress" else "to"
    peers = {
        f"{side}Endpoints": array(label_selector()),
        f"{side}CIDR": array(CIDR_OR_ADDRESS),
        f"{side}CIDRSet": array(cidr_rule()),
        f"{side}Entities": array(string(one_of=ENTITIES)),
        f"{side}Groups": array(groups()),
        f"{side}Nodes": array(label_selector()),
    }
    if direction == "egress":
        peers["toServices"] = array(service())
        if not deny:
            peers["toFQDNs"] = array(name_match())
    others = {
        f"{side}Requires": array(label_selector(), maxItems=0),
        "toPorts": array(port_rule(direction, deny)),
        "icmps": array(icmp_rule()),
    }
    if not deny:
        others["authentication"] = authentication()
    return fields(
        {**peers, **others},
        allOf=[one_filled_at_most(peers), one_filled_at_most(("toPorts", "icmps"))],
    )


def policy_rule() -> Schema:
    """What `spec` is, and each of `specs`."""
    label = fields({"key": string(), "value": string(), "source": string()}, required=("key",))
    return fields(
        {
            "endpointSelector": label_selector(),
            "nodeSelector": label_selector(),
            "ingress": array(_element("ingress", deny=False)),
            "ingressDeny": array(_element("ingress", deny=True)),
            "egress": array(_element("egress", deny=False)),
            "egressDeny": array(_element("egress", deny=True)),
            "labels": array(label),
            "enableDefaultDeny": fields({"ingress": boolean(), "egress": boolean()}),
            "description": string(),
            "log": fields({"value": string(r"^\PC*$", most=32)}),
        },
        oneOf=[{"required": ["endpointSelector"]}, {"required": ["nodeSelector"]}],
        anyOf=[{"required": [name], "properties": {name: {"minItems": 1}}} for name in SECTIONS],
    )


def _status() -> Schema:
    derived = fields(
        {
            "annotations": mapping(string()),
            "enforcing": boolean(),
            "error": string(),
            "lastUpdated": time(),
            "localPolicyRevision": {"type": "integer", "format": "int64"},
            "ok": boolean(),
        }
    )
    return fields({"conditions": conditions(), "derivativePolicies": mapping(derived)})


def _policy(kind: str, plural: str, short_names: tuple[str, ...], namespaced: bool) -> Definition:
    body = policy_rule()
    if namespaced:
        of_pods = "is for CiliumClusterwideNetworkPolicy only; use endpointSelector"
        body["x-kubernetes-validations"] = [rule("!has(self.nodeSelector)", f"nodeSelector {of_pods}")]
    either = rule("has(self.spec) || has(self.specs)", "has neither spec nor specs; give one of them")
    columns = (
        AGE,
        Column("Valid", ".status.conditions[?(@.type=='Valid')].status"),
        Column("Enforced", ".status.conditions[?(@.type=='Enforced')].status"),
        Column("Message", ".status.conditions[?(@.type=='Enforced')].message", priority=1),
    )
    schema = {"spec": body, "specs": array(body), "status": _status()}
    version = Version("v2", schema, columns=columns, rules=(either,))
    return Definition(kind, plural, short_names, namespaced, (version,), ("cilium", "ciliumpolicy"))


_CIDR_GROUP = {"spec": fields({"externalCIDRs": array(CIDR, **ATOMIC)}, required=("externalCIDRs",))}

DEFINITIONS = (
    _policy("CiliumNetworkPolicy", "ciliumnetworkpolicies", ("cnp", "ciliumnp"), namespaced=True),
    _policy("CiliumClusterwideNetworkPolicy", "ciliumclusterwidenetworkpolicies", ("ccnp",), namespaced=False),
    Definition(
        "CiliumCIDRGroup",
        "ciliumcidrgroups",
        ("ccg",),
        False,
        (
            Version("v2", _CIDR_GROUP, ("spec",)),
            Version("v2alpha1", _CIDR_GROUP, ("spec",), stored=False, deprecated=True),
        ),
        has_status=False,
    ),
)
