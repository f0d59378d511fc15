"""Kubernetes NetworkPolicy: manifests to rules."""

from __future__ import annotations

from ciliate.model.policy import Direction, Rule

from ciliate_policy.labels import NAMESPACE_LABELS
from ciliate_policy.peers import IN_NAMESPACE, cidr, cidr_peers, except_cidr, requirements, scope_subject
from ciliate_policy.ports import check_port, end_port, expand, is_port_name
from ciliate_policy.rules import PORT_MAX, PROTOCOLS, CidrSelector, Element, Peer, PolicyKey, PolicyRule, PortMatch
from ciliate_policy.selectors import equals, exists, make_selector
from ciliate_policy.validation import Node

NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""The label that every namespace carries with its own name as the value."""


def read_rules(root: Node, key: PolicyKey, uid: str, generation: int) -> list[PolicyRule]:
    """The one rule of a NetworkPolicy. Problems go to the node's findings."""
    fields = root.any_fields()
    if "spec" not in fields:
        root.findings.invalid("spec", "NetworkPolicy has no spec")
        return []
    spec = fields["spec"].fields({"podSelector", "policyTypes", "ingress", "egress"})
    found = requirements(spec["podSelector"], _pod_key) if "podSelector" in spec else []
    types = (
        set(spec["policyTypes"].each(lambda item: item.choice({"Ingress", "Egress"})))
        if "policyTypes" in spec
        else set()
    )
    elements: list[Element] = []
    for section, direction in (("ingress", Direction.INGRESS), ("egress", Direction.EGRESS)):
        if section in spec:
            elements += _elements(spec[section], Rule(
                kind=key.kind, namespace=key.namespace, name=key.name, uid=uid, generation=generation,
                direction=section, index=0,
            ), direction)  # fmt: skip
    given = {element.direction for element in elements}
    ingress = Direction.INGRESS in given or "Ingress" in types or "Egress" not in types
    egress = Direction.EGRESS in given or "Egress" in types
    return [PolicyRule(scope_subject(found, key.namespace), (ingress, egress), tuple(elements))]


def _elements(node: Node, rule: Rule, direction: Direction) -> list[Element]:
    elements: list[Element] = []
    for index, item in enumerate(node.items()):
        with node.findings.collect():
            elements.append(_element(item, rule, direction, index))
    return elements


def _element(node: Node, rule: Rule, direction: Direction, index: int) -> Element:
    name = "from" if direction is Direction.INGRESS else "to"
    fields = node.fields({name, "ports"})
    peers: tuple[Peer, ...] | None = None
    if name in fields and fields[name].items():
        groups = fields[name].each(lambda item: _peer(item, rule.namespace))
        peers = tuple(peer for group in groups for peer in group)
    ports: tuple[PortMatch, ...] | None = None
    if "ports" in fields and fields["ports"].items():
        ports = tuple(dict.fromkeys(fields["ports"].each(_port)))
    numbered = Rule(
        kind=rule.kind, namespace=rule.namespace, name=rule.name, uid=rule.uid, generation=rule.generation,
        direction=rule.direction, index=index,
    )  # fmt: skip
    return Element(numbered, direction, False, peers, ports)


def _peer(node: Node, namespace: str) -> list[Peer]:
    fields = node.fields({"podSelector", "namespaceSelector", "ipBlock"})
    if "ipBlock" in fields:
        if len(fields) > 1:
            node.refuse("has ipBlock and a selector, which exclude each other; use a peer for each")
        return _ip_block(fields["ipBlock"])
    if not fields:
        node.refuse("is empty; a peer needs podSelector, namespaceSelector or ipBlock")
    found = requirements(fields["podSelector"], _pod_key) if "podSelector" in fields else []
    if "namespaceSelector" not in fields:
        return [make_selector([*found, equals(IN_NAMESPACE, namespace)])]
    # The namespace label must exist in any case: a NotIn alone would hold for hosts and the world too.
    found += requirements(fields["namespaceSelector"], _namespace_key)
    return [make_selector([*found, exists(IN_NAMESPACE)])]


def _pod_key(key: str) -> str:
    return f"k8s:{key}"


def _namespace_key(key: str) -> str:
    return IN_NAMESPACE if key == NAMESPACE_NAME else f"k8s:{NAMESPACE_LABELS}{key}"


def _ip_block(node: Node) -> list[Peer]:
    fields = node.fields({"cidr", "except"})
    if "cidr" not in fields:
        node.refuse("has no cidr")
    within = cidr(fields["cidr"])
    excepts = tuple(fields["except"].each(lambda item: except_cidr(item, within))) if "except" in fields else ()
    return cidr_peers(CidrSelector(((within, excepts),)))


def _port(node: Node) -> PortMatch:
    fields = node.fields({"port", "endPort", "protocol"})
    protocol = fields["protocol"].choice(set(PROTOCOLS)) if "protocol" in fields else "TCP"
    if "port" not in fields:
        if "endPort" in fields:
            fields["endPort"].refuse("needs a port where the range begins")
        return expand(protocol, 0, PORT_MAX)[0]
    port = fields["port"]
    if isinstance(port.value, str):
        return _named(port, fields, protocol)
    number = port.integer()
    check_port(port, number)
    if number == 0:
        port.refuse("0 is no port here; leave port out for all ports")
    last = end_port(fields["endPort"], number) if "endPort" in fields else number
    return expand(protocol, number, last)[0]


def _named(port: Node, fields: dict[str, Node], protocol: str) -> PortMatch:
    if "endPort" in fields:
        fields["endPort"].refuse("needs a numeric port; a named port has no range")
    if not is_port_name(port.text()):
        hint = "; write a number without quotes" if port.text().isdigit() else ""
        port.refuse(f"{port.text()!r} is not a port's name: up to 15 lower-case letters, digits and dashes{hint}")
    return expand(protocol, 0, PORT_MAX, port.text())[0]
