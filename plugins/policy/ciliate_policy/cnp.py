"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy: manifests to rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ciliate.model.policy import Direction, Rule

from ciliate_policy.peers import cidr, cidr_peers, cidr_set, entity_peers, requirements, scope_peer, scope_subject
from ciliate_policy.ports import end_port, expand, icmp_fields, port_number
from ciliate_policy.rules import PORT_MAX, CidrSelector, Element, Peer, PolicyKey, PolicyRule, PortMatch
from ciliate_policy.selectors import LabelSelector
from ciliate_policy.validation import Node

SECTIONS = ("ingress", "ingressDeny", "egress", "egressDeny")
RULE_FIELDS = {"endpointSelector", "nodeSelector", *SECTIONS, "labels", "enableDefaultDeny", "description", "log"}
PORTS_MAX = 40

_L3 = {
    Direction.INGRESS: ("fromEndpoints", "fromCIDR", "fromCIDRSet", "fromEntities", "fromGroups", "fromNodes"),
    Direction.EGRESS: (
        "toEndpoints", "toCIDR", "toCIDRSet", "toEntities", "toServices", "toGroups", "toNodes", "toFQDNs",
    ),
}  # fmt: skip
_EMPTY_IS_ABSENT = ("toFQDNs", "toServices", "fromGroups", "toGroups")
_NOT_YET = ("fromGroups", "toGroups", "fromNodes", "toNodes", "toServices", "toFQDNs")
_EXTENDED_PROTOCOLS = {"VRRP", "IGMP", "GRE", "IPIP", "IPV6", "ESP", "AH"}
_L7_KINDS = {"http", "dns", "kafka", "l7proto", "l7"}
_NOT_YET_ON_PORTS = ("terminatingTLS", "originatingTLS", "serverNames", "listener")


class _Scope:
    """What the elements of one rule share."""

    def __init__(self, owner: PolicyKey, uid: str, generation: int, spec_index: int, cluster: str) -> None:
        self.owner = owner
        self.uid = uid
        self.generation = generation
        self.spec_index = spec_index
        self.cluster = cluster
        self.subject_is_init = False

    def rule(self, section: str, index: int) -> Rule:
        """The address of one element."""
        owner = self.owner
        return Rule(
            kind=owner.kind, namespace=owner.namespace, name=owner.name, uid=self.uid, generation=self.generation,
            direction=section, index=index, spec_index=self.spec_index,
        )  # fmt: skip


def read_rules(
    root: Node, obj: Mapping[str, Any], key: PolicyKey, uid: str, generation: int, cluster: str
) -> list[PolicyRule]:
    """The rules of `spec` and `specs`. Problems go to the node's findings."""
    fields = root.fields(set(obj))
    if "spec" not in fields and "specs" not in fields:
        root.findings.invalid("spec", f"{key.kind} has neither spec nor specs; give one of them")
        return []
    rules = []
    if "spec" in fields:
        with root.findings.collect():
            rules.append(_rule(fields["spec"], _Scope(key, uid, generation, -1, cluster)))
    if "specs" in fields:
        with root.findings.collect():
            for index, item in enumerate(fields["specs"].items()):
                with root.findings.collect():
                    rules.append(_rule(item, _Scope(key, uid, generation, index, cluster)))
    return rules


def _rule(node: Node, scope: _Scope) -> PolicyRule:
    fields = node.fields(RULE_FIELDS)
    subject = _subject(node, fields, scope)
    if not any(name in fields and fields[name].value for name in SECTIONS):
        node.refuse(f"says nothing: at least one of {', '.join(SECTIONS)} must have an element")
    _check_notes(fields)
    elements: list[Element] = []
    enforcing = [False, False]
    for section in SECTIONS:
        if section in fields:
            with node.findings.collect():
                items = fields[section].items()
                direction = Direction.EGRESS if section.startswith("egress") else Direction.INGRESS
                enforcing[direction] |= bool(items)
                for index, item in enumerate(items):
                    with node.findings.collect():
                        elements.append(_element(item, scope, section, direction, index))
    if "enableDefaultDeny" in fields:
        for name, one in fields["enableDefaultDeny"].fields({"ingress", "egress"}).items():
            enforcing[Direction.INGRESS if name == "ingress" else Direction.EGRESS] = one.boolean()
    return PolicyRule(subject, (enforcing[0], enforcing[1]), tuple(elements), scope.spec_index)


def _subject(node: Node, fields: dict[str, Node], scope: _Scope) -> LabelSelector | None:
    if ("endpointSelector" in fields) == ("nodeSelector" in fields):
        node.refuse("needs exactly one of endpointSelector and nodeSelector")
    if "endpointSelector" in fields:
        found = requirements(fields["endpointSelector"])
        scope.subject_is_init = any(one.key == "reserved:init" for one in found)
        return scope_subject(found, scope.owner.namespace)
    selector = fields["nodeSelector"]
    requirements(selector)
    if scope.owner.namespace:
        selector.refuse("is for CiliumClusterwideNetworkPolicy only; use endpointSelector here")
    node.findings.unsupported(selector.path, "policies of nodes are not enforced yet; this rule selects nothing")
    return None


def _check_notes(fields: dict[str, Node]) -> None:
    """Fields that decide nothing."""
    if "description" in fields:
        fields["description"].text()
    if "labels" in fields:
        fields["labels"].each(lambda item: item.fields({"key", "value", "source"}))
    if "log" in fields:
        log = fields["log"].fields({"value"})
        if "value" in log and (len(log["value"].text()) > 32 or not log["value"].text().isprintable()):
            log["value"].refuse("must have at most 32 printable characters")


def _element(node: Node, scope: _Scope, section: str, direction: Direction, index: int) -> Element:
    deny = section.endswith("Deny")
    requires = "fromRequires" if direction is Direction.INGRESS else "toRequires"
    known = {*_L3[direction], "toPorts", "icmps", requires}
    fields = node.fields((known - {"toFQDNs"}) if deny else {*known, "authentication"})
    if requires in fields and fields[requires].items():
        fields[requires].refuse("is no longer supported; put the requirement into the selectors")
    peers = _peers(node, fields, scope, direction)
    ports = _ports(node, fields, direction, deny)
    if "authentication" in fields and not deny:
        peers = _authenticated(fields["authentication"], peers)
    return Element(scope.rule(section, index), direction, deny, peers, ports)


def _authenticated(node: Node, peers: tuple[Peer, ...] | None) -> tuple[Peer, ...] | None:
    fields = node.fields({"mode"})
    if "mode" not in fields:
        node.refuse("has no mode; use disabled, required or test-always-fail")
    if fields["mode"].choice({"disabled", "required", "test-always-fail"}) == "disabled":
        return peers
    node.findings.unsupported(node.path, "authentication is not done yet; this element selects nothing")
    return ()


def _peers(node: Node, fields: dict[str, Node], scope: _Scope, direction: Direction) -> tuple[Peer, ...] | None:
    given = {name: fields[name] for name in _L3[direction] if name in fields}
    sizes = {name: len(one.items()) for name, one in given.items()}
    filled = [name for name, size in sizes.items() if size]
    if len(filled) > 1:
        node.refuse(f"has {' and '.join(filled)}, which exclude each other; use an element for each")
    peers: tuple[Peer, ...] | None = None
    for name, one in given.items():
        if sizes[name] == 0 and name in _EMPTY_IS_ABSENT:
            continue
        peers = () if sizes[name] == 0 or peers == () else _read_peers(name, one, scope)
    return peers


def _read_peers(name: str, node: Node, scope: _Scope) -> tuple[Peer, ...] | None:
    if name in _NOT_YET:
        node.findings.unsupported(node.path, f"{name} is not enforced yet; this element selects nothing")
        for item in node.items():
            item.any_fields()
        return ()
    if name.endswith("Endpoints"):
        namespace, is_init = scope.owner.namespace, scope.subject_is_init
        return tuple(node.each(lambda item: scope_peer(requirements(item), namespace, is_init)))
    if name.endswith("Entities"):
        found = node.each(lambda item: entity_peers(item, scope.cluster))
        return None if None in found else tuple(peer for one in found if one is not None for peer in one)
    if name.endswith("CIDRSet"):
        return tuple(cidr_peers(cidr_set(node)))
    networks = node.each(lambda item: cidr(item, bare=True))
    return tuple(cidr_peers(CidrSelector(tuple((network, ()) for network in networks))))


def _ports(node: Node, fields: dict[str, Node], direction: Direction, deny: bool) -> tuple[PortMatch, ...] | None:
    to_ports = fields["toPorts"].items() if "toPorts" in fields else []
    icmps = fields["icmps"].items() if "icmps" in fields else []
    if to_ports and icmps:
        node.refuse("has toPorts and icmps, which exclude each other; use an element for each")
    if icmps:
        return _unique(fields["icmps"].each(icmp_fields))
    if not to_ports:
        return None
    return _unique(fields["toPorts"].each(lambda item: _port_rule(item, direction, deny)))


def _unique(groups: list[list[PortMatch]]) -> tuple[PortMatch, ...]:
    return tuple(dict.fromkeys(match for group in groups for match in group))


def _port_rule(node: Node, direction: Direction, deny: bool) -> list[PortMatch]:
    fields = node.fields({"ports"} if deny else {"ports", "rules", *_NOT_YET_ON_PORTS})
    matches = (
        [match for group in fields["ports"].each(_port, PORTS_MAX) for match in group] if "ports" in fields else []
    )
    if not matches:
        matches = [PortMatch()]
    enforced = True
    if "rules" in fields:
        enforced = _l7(fields["rules"], direction, fields.get("ports"), matches)
    for name in _NOT_YET_ON_PORTS:
        if name in fields:
            _check_port_option(fields, name, direction)
            node.findings.unsupported(fields[name].path, f"{name} is not enforced yet; these ports are not opened")
            enforced = False
    return matches if enforced else []


def _check_port_option(fields: dict[str, Node], name: str, direction: Direction) -> None:
    node = fields[name]
    if name == "serverNames":
        if "" in [item.text() for item in node.items()]:
            node.refuse("has an empty name")
    elif name == "listener":
        if direction is Direction.INGRESS:
            node.refuse("is for egress only")
        if "rules" in fields and _l7_members(fields["rules"]):
            node.refuse("can't be combined with rules")


def _l7_members(node: Node) -> list[Node]:
    return [one for one in node.fields(_L7_KINDS).values() if one.value]


def _l7(node: Node, direction: Direction, ports: Node | None, matches: list[PortMatch]) -> bool:
    """Whether the ports may be opened: not if there are L7 rules, which nothing checks yet."""
    filled = _l7_members(node)
    kinds = {one.path.rpartition(".")[2] for one in filled}
    if len(kinds - {"l7", "l7proto"}) + bool(kinds & {"l7", "l7proto"}) > 1:
        node.refuse(f"has {' and '.join(sorted(kinds))}; one kind of rules is allowed")
    if "dns" in kinds and direction is Direction.INGRESS:
        node.refuse("dns rules are for egress only")
    _check_l7_ports(node, kinds, ports, matches)
    for one in filled:
        node.findings.unsupported(one.path, "L7 rules are not enforced yet; these ports are not opened")
    return not filled


def _check_l7_ports(node: Node, kinds: set[str], ports: Node | None, matches: list[PortMatch]) -> None:
    """What L7 rules ask of their ports, as Cilium refuses it."""
    listed = [item.value for item in ports.items() if isinstance(item.value, dict)] if ports else []
    protocols = {one.get("protocol", "ANY") for one in listed}
    if "dns" in kinds:
        if not listed:
            node.refuse("dns rules need at least one port")
        if protocols - {"TCP", "UDP", "ANY"} or any(one.get("endPort") for one in listed):
            node.refuse("dns rules need ports of TCP, UDP or ANY without endPort")
    elif kinds:
        if protocols - {"TCP", "ANY"}:
            node.refuse(f"{' and '.join(sorted(kinds))} rules need protocol TCP")
        if listed and any((match.first, match.last, match.name) == (0, PORT_MAX, "") for match in matches):
            node.refuse("L7 rules can't be used with port 0")


def _port(node: Node) -> tuple[PortMatch, ...]:
    fields = node.fields({"port", "endPort", "protocol"})
    protocol = "ANY"
    if "protocol" in fields:
        protocol = fields["protocol"].choice({"TCP", "UDP", "SCTP", "ANY", *_EXTENDED_PROTOCOLS})
    if protocol in _EXTENDED_PROTOCOLS:
        node.findings.unsupported(fields["protocol"].path, f"protocol {protocol} is not enforced yet")
        return ()
    if "port" not in fields:
        node.refuse('has no port; "0" means all ports')
    number = port_number(fields["port"])
    if "endPort" in fields and fields["endPort"].value != 0:
        return expand(protocol, number or 0, end_port(fields["endPort"], number))
    if number is None:
        return expand(protocol, 0, PORT_MAX, fields["port"].text().lower())
    return expand(protocol, 0, PORT_MAX) if number == 0 else expand(protocol, number, number)
