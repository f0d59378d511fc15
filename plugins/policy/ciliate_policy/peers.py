"""Peers of manifests: label selectors in their namespace's scope, entities, CIDRs."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable

from ciliate.model.base import IPNetwork

from ciliate_policy.labels import CLUSTER, NAMESPACE_LABELS, POD_NAMESPACE
from ciliate_policy.rules import CidrSelector, Excepts, Peer
from ciliate_policy.selectors import LabelSelector, Operator, Requirement, equals, exists, make_selector, selector_key
from ciliate_policy.validation import Node

IN_NAMESPACE = f"k8s:{POD_NAMESPACE}"
IN_CLUSTER = f"k8s:{CLUSTER}"

_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
_RESERVED_OF_CLUSTER = ("host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver")
_ENTITIES = {
    "world": ("world", "world-ipv4", "world-ipv6"),
    "cluster": _RESERVED_OF_CLUSTER,
    "cluster-mesh": _RESERVED_OF_CLUSTER,
    "none": (),
} | {
    name: (name,)
    for name in (
        "world-ipv4",
        "world-ipv6",
        "host",
        "remote-node",
        "init",
        "ingress",
        "health",
        "unmanaged",
        "kube-apiserver",
    )
}
ENTITIES = frozenset({"all", *_ENTITIES})


def requirements(node: Node, key: Callable[[str], str] = selector_key) -> list[Requirement]:
    """The requirements of a manifest's LabelSelector; `key` gives a selector's key its source."""
    fields = node.fields({"matchLabels", "matchExpressions"})
    found: list[Requirement] = []
    if "matchLabels" in fields:
        for name, value in fields["matchLabels"].any_fields().items():
            with node.findings.collect():
                found.append(equals(_key(value, name, key), _value(value)))
    if "matchExpressions" in fields:
        found += fields["matchExpressions"].each(lambda item: _expression(item, key))
    return found


def _expression(node: Node, key: Callable[[str], str]) -> Requirement:
    fields = node.fields({"key", "operator", "values"})
    for name in ("key", "operator"):
        if name not in fields:
            node.refuse(f"has no {name}")
    operator = Operator(fields["operator"].choice({member.value for member in Operator}))
    values = tuple(sorted(set(fields["values"].each(_value)))) if "values" in fields else ()
    if operator in (Operator.IN, Operator.NOT_IN) and not values:
        node.refuse(f"operator {operator.value} needs at least one of values")
    if operator in (Operator.EXISTS, Operator.DOES_NOT_EXIST) and values:
        node.refuse(f"operator {operator.value} takes no values")
    return Requirement(_key(fields["key"], fields["key"].text(), key), operator, values)


def _key(node: Node, name: str, key: Callable[[str], str]) -> str:
    try:
        return key(name)
    except ValueError as error:
        node.refuse(str(error))


def _value(node: Node) -> str:
    value = node.text()
    if len(value) > 63 or not _VALUE.match(value):
        node.refuse(
            f"{value!r} is not a label's value: up to 63 letters, digits, -, _ and . with a letter or digit at the ends"
        )
    return value


def scope_subject(found: Iterable[Requirement], namespace: str) -> LabelSelector:
    """The subject of an object in a namespace ("": a cluster-wide one). A namespace in its matchLabels is overruled."""
    if not namespace:
        return make_selector(found)
    kept = [
        one for one in found if not (one.key == IN_NAMESPACE and one.operator is Operator.IN and len(one.values) == 1)
    ]
    return make_selector([*kept, equals(IN_NAMESPACE, namespace)])


def scope_peer(found: list[Requirement], namespace: str, subject_is_init: bool) -> LabelSelector:
    """A peer selector, limited to the object's namespace, or (cluster-wide) to pods, unless it says otherwise."""
    if any(one.key.startswith("reserved:") for one in found):
        return make_selector(found)
    if namespace:
        named = any(_names_namespace(one.key) for one in found)
        return make_selector(found if named else [*found, equals(IN_NAMESPACE, namespace)])
    return make_selector(found if subject_is_init else [*found, exists(IN_NAMESPACE)])


def _names_namespace(key: str) -> bool:
    source, _, name = key.partition(":")
    return source in ("k8s", "any") and (name == POD_NAMESPACE or name.startswith(NAMESPACE_LABELS))


def entity_peers(node: Node, cluster: str) -> list[Peer] | None:
    """The selectors that an entity stands for; None for `all`."""
    name = node.choice(ENTITIES)
    if name == "all":
        return None
    peers: list[Peer] = [make_selector([exists(f"reserved:{label}")]) for label in _ENTITIES[name]]
    if name == "cluster":
        peers.append(make_selector([equals(IN_CLUSTER, cluster)]))
    elif name == "cluster-mesh":
        peers.append(make_selector([exists(IN_CLUSTER)]))
    return peers


def cidr(node: Node, bare: bool = False) -> IPNetwork:
    """A prefix, host bits masked. bare: an address alone is understood as a prefix of its full length."""
    text = node.text()
    if not bare and "/" not in text:
        node.refuse(f"{text!r} has no prefix length; write it as {text}/32 or {text}/128 for one address")
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        node.refuse(f"{text!r} is not a CIDR: {error}")


def cidr_peers(selector: CidrSelector) -> list[Peer]:
    """The selector, with /0 (which is nothing but `world` of that family) as the label selector that it is."""
    peers: list[Peer] = []
    networks = []
    for network, excepts in selector.networks:
        if network.prefixlen == 0 and not excepts:
            peers.append(make_selector([exists(f"reserved:world-ipv{network.version}")]))
        else:
            networks.append((network, excepts))
    if networks or selector.groups or selector.group_selectors:
        peers.append(CidrSelector(tuple(networks), selector.groups, selector.group_selectors))
    return peers


def cidr_set(node: Node) -> CidrSelector:
    """The CIDRRules of a fromCIDRSet or toCIDRSet list as one selector."""
    networks: list[tuple[IPNetwork, Excepts]] = []
    groups: list[tuple[str, Excepts]] = []
    selectors: list[tuple[LabelSelector, Excepts]] = []
    for item in node.items():
        with node.findings.collect():
            _cidr_rule(item, networks, groups, selectors)
    return CidrSelector(tuple(networks), tuple(groups), tuple(selectors))


def _cidr_rule(
    node: Node,
    networks: list[tuple[IPNetwork, Excepts]],
    groups: list[tuple[str, Excepts]],
    selectors: list[tuple[LabelSelector, Excepts]],
) -> None:
    kinds = ("cidr", "cidrGroupRef", "cidrGroupSelector")
    fields = node.fields({*kinds, "except"})
    given = [name for name in kinds if name in fields]
    if len(given) != 1:
        node.refuse(f"needs exactly one of {', '.join(kinds)}; it has {' and '.join(given) or 'none'}")
    within = cidr(fields["cidr"]) if "cidr" in fields else None
    excepts = tuple(fields["except"].each(lambda item: except_cidr(item, within))) if "except" in fields else ()
    if within is not None:
        networks.append((within, excepts))
    elif "cidrGroupRef" in fields:
        groups.append((fields["cidrGroupRef"].text(), excepts))
    else:
        selectors.append((make_selector(requirements(fields["cidrGroupSelector"])), excepts))


def except_cidr(node: Node, within: IPNetwork | None) -> IPNetwork:
    """An exception, which must lie inside the CIDR it is taken from."""
    network = cidr(node)
    if within is not None and not covers(within, network):
        node.refuse(f"{network} is not inside {within}; an exception must be part of its cidr")
    return network


def covers(outer: IPNetwork, inner: IPNetwork) -> bool:
    """Whether a network contains another of the same family."""
    if outer.version != inner.version or outer.prefixlen > inner.prefixlen:
        return False
    shift = outer.max_prefixlen - outer.prefixlen
    return int(outer.network_address) >> shift == int(inner.network_address) >> shift
