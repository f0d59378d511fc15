"""A slow, obvious judge, written from facts/policy.md alone. It reads raw manifests and uses no code of the engine.

A party is a dict: `labels` (source:key=value), `ip` (only outside the cluster), `ports` ({name: (protocol, number)}).
A verdict is `allow`, `deny` (by a deny rule) or `default-deny`.
"""

from __future__ import annotations

import ipaddress
from typing import Any

Party = dict[str, Any]
NAMESPACE = "io.kubernetes.pod.namespace"
NS_LABELS = "io.cilium.k8s.namespace.labels."
PROTOCOLS = {"TCP": [6], "UDP": [17], "SCTP": [132], "ANY": [6, 17, 132]}
CLUSTER_ENTITIES = ["host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver"]


def judge(
    manifests: list[dict[str, Any]],
    groups: list[dict[str, Any]],
    subject: Party,
    peer: Party,
    direction: str,
    protocol: int,
    port: int,
    mode: str = "default",
    allow_localhost: bool = True,
) -> str:
    """The verdict of one side of a connection: of `subject`, for traffic from or to `peer`."""
    if mode == "never":
        return "allow"
    enforced = mode == "always" or has(subject, "reserved", "init")
    allowed = denied = False
    for manifest in manifests:
        for spec in specs_of(manifest):
            if not selects_subject(manifest, spec, subject):
                continue
            enforced = enforced or default_deny(manifest, spec, direction)
            destination = subject if direction == "ingress" else peer
            for element in spec.get(direction) or []:
                if peer_matches(manifest, spec, element, peer, groups) and ports_match(
                    manifest, element, destination, protocol, port
                ):
                    allowed = True
            for element in spec.get(direction + "Deny") or []:
                if peer_matches(manifest, spec, element, peer, groups) and ports_match(
                    manifest, element, destination, protocol, port
                ):
                    denied = True
    if denied:
        return "deny"
    if not enforced or allowed:
        return "allow"
    if direction == "ingress" and allow_localhost and has(peer, "reserved", "host"):
        return "allow"
    return "default-deny"


def specs_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """All rules of an object."""
    return [*([manifest["spec"]] if "spec" in manifest else []), *manifest.get("specs", [])]


def is_knp(manifest: dict[str, Any]) -> bool:
    """Whether it is a Kubernetes NetworkPolicy."""
    return bool(manifest["kind"] == "NetworkPolicy")


def default_deny(manifest: dict[str, Any], spec: dict[str, Any], direction: str) -> bool:
    """Whether the rule switches default deny on in a direction."""
    if is_knp(manifest):
        types = spec.get("policyTypes") or []
        if spec.get(direction):
            return True
        return ("Ingress" in types or "Egress" not in types) if direction == "ingress" else "Egress" in types
    explicit = (spec.get("enableDefaultDeny") or {}).get(direction)
    if explicit is not None:
        return bool(explicit)
    return bool(spec.get(direction) or spec.get(direction + "Deny"))


def labels_of(party: Party) -> list[tuple[str, str, str]]:
    """(source, key, value) of each label."""
    result = []
    for text in party["labels"]:
        name, _, value = text.partition("=")
        source, _, key = name.partition(":")
        result.append((source, key, value))
    return result


def values(party: Party, source: str, key: str) -> list[str]:
    """The values of a key; source `any` asks every source."""
    return [v for s, k, v in labels_of(party) if k == key and source in ("any", s)]


def has(party: Party, source: str, key: str) -> bool:
    """Whether a label is there."""
    return bool(values(party, source, key))


def conditions(selector: dict[str, Any], source: str = "any") -> list[tuple[str, str, str, list[str]]]:
    """(source, key, operator, values) of a selector; `source` for keys without one."""
    result = []
    for name, value in (selector.get("matchLabels") or {}).items():
        before, colon, after = name.partition(":")
        result.append((before, after, "In", [value]) if colon else (source, name, "In", [value]))
    for expression in selector.get("matchExpressions") or []:
        before, colon, after = expression["key"].partition(":")
        where = (before, after) if colon else (source, expression["key"])
        result.append((*where, expression["operator"], expression.get("values") or []))
    return result


def holds(party: Party, found: list[tuple[str, str, str, list[str]]]) -> bool:
    """Whether all conditions hold."""
    for source, key, operator, wanted in found:
        actual = values(party, source, key)
        if operator == "In" and not set(actual) & set(wanted):
            return False
        if operator == "NotIn" and set(actual) & set(wanted):
            return False
        if operator == "Exists" and not actual:
            return False
        if operator == "DoesNotExist" and actual:
            return False
    return True


def selects_subject(manifest: dict[str, Any], spec: dict[str, Any], subject: Party) -> bool:
    """Whether the rule is about an endpoint."""
    namespace = manifest["metadata"].get("namespace", "")
    if is_knp(manifest):
        return values(subject, "k8s", NAMESPACE) == [namespace] and holds(
            subject, conditions(spec.get("podSelector") or {}, "k8s")
        )
    if "nodeSelector" in spec:
        return False
    if namespace and values(subject, "k8s", NAMESPACE) != [namespace]:
        return False
    return holds(subject, conditions(spec["endpointSelector"]))


def peer_matches(
    manifest: dict[str, Any], spec: dict[str, Any], element: dict[str, Any], peer: Party, groups: list[dict[str, Any]]
) -> bool:
    """Whether the element's peers have this one among them."""
    if is_knp(manifest):
        peers = element.get("from", element.get("to"))
        return not peers or any(knp_peer(manifest, one, peer) for one in peers)
    if (element.get("authentication") or {}).get("mode", "disabled") != "disabled":
        return False
    restricted = matched = False
    for name, value in element.items():
        kind = name.removeprefix("from").removeprefix("to")
        if value is None or kind in ("Ports", "icmps", "authentication"):
            continue
        if kind in ("FQDNs", "Services", "Groups"):
            restricted = restricted or bool(value)
            continue
        restricted = True
        if kind == "Endpoints":
            matched = any(endpoint_peer(manifest, spec, one, peer) for one in value)
        elif kind == "Entities":
            matched = any(entity(one, peer) for one in value)
        elif kind == "CIDR":
            matched = any(in_cidr(peer, one, []) for one in value)
        elif kind == "CIDRSet":
            matched = any(cidr_rule(one, peer, groups) for one in value)
    return matched or not restricted


def endpoint_peer(manifest: dict[str, Any], spec: dict[str, Any], selector: dict[str, Any], peer: Party) -> bool:
    """A selector of fromEndpoints or toEndpoints, in its scope."""
    found = conditions(selector)
    if any(source == "reserved" for source, *_ in found):
        return holds(peer, found)
    namespace = manifest["metadata"].get("namespace", "")
    if namespace:
        named = any(
            source in ("k8s", "any") and (key == NAMESPACE or key.startswith(NS_LABELS)) for source, key, *_ in found
        )
        if not named and values(peer, "k8s", NAMESPACE) != [namespace]:
            return False
    else:
        about_init = any(s == "reserved" and k == "init" for s, k, *_ in conditions(spec["endpointSelector"]))
        if not about_init and not has(peer, "k8s", NAMESPACE):
            return False
    return holds(peer, found)


def entity(name: str, peer: Party) -> bool:
    """Whether a peer is of an entity."""
    if name == "all":
        return True
    if name == "none":
        return False
    if name == "world":
        return any(has(peer, "reserved", one) for one in ("world", "world-ipv4", "world-ipv6"))
    if name in ("cluster", "cluster-mesh"):
        if any(has(peer, "reserved", one) for one in CLUSTER_ENTITIES):
            return True
        found = values(peer, "k8s", "io.cilium.k8s.policy.cluster")
        return bool(found) if name == "cluster-mesh" else found == ["default"]
    return has(peer, "reserved", name)


def in_cidr(peer: Party, cidr: str, excepts: list[str]) -> bool:
    """Whether a peer outside the cluster has an address inside a CIDR and outside its exceptions."""
    if not peer.get("ip"):
        return False
    address = ipaddress.ip_address(peer["ip"])
    networks = [ipaddress.ip_network(one, strict=False) for one in [cidr, *excepts]]
    inside = [address.version == one.version and address in one for one in networks]
    return inside[0] and not any(inside[1:])


def cidr_rule(rule: dict[str, Any], peer: Party, groups: list[dict[str, Any]]) -> bool:
    """One element of fromCIDRSet or toCIDRSet."""
    excepts = rule.get("except") or []
    if "cidr" in rule:
        return in_cidr(peer, rule["cidr"], excepts)
    for group in groups:
        if "cidrGroupRef" in rule:
            chosen = group["metadata"]["name"] == rule["cidrGroupRef"]
        else:
            labels = {"labels": [f"cidrgroup:{k}={v}" for k, v in group["metadata"].get("labels", {}).items()]}
            chosen = holds(labels, conditions(rule["cidrGroupSelector"]))
        if chosen and any(in_cidr(peer, one, excepts) for one in group["spec"]["externalCIDRs"]):
            return True
    return False


def knp_peer(manifest: dict[str, Any], one: dict[str, Any], peer: Party) -> bool:
    """One peer of a Kubernetes NetworkPolicy."""
    if "ipBlock" in one:
        return in_cidr(peer, one["ipBlock"]["cidr"], one["ipBlock"].get("except") or [])
    if not has(peer, "k8s", NAMESPACE):
        return False
    if "namespaceSelector" in one:
        prefixed = [
            ("k8s", NS_LABELS + key, operator, wanted)
            for _, key, operator, wanted in conditions(one["namespaceSelector"])
        ]
        if not holds(peer, prefixed):
            return False
    elif values(peer, "k8s", NAMESPACE) != [manifest["metadata"]["namespace"]]:
        return False
    return holds(peer, conditions(one.get("podSelector") or {}, "k8s"))


def ports_match(
    manifest: dict[str, Any], element: dict[str, Any], destination: Party, protocol: int, port: int
) -> bool:
    """Whether the element's ports or ICMP types have this one among them."""
    if is_knp(manifest):
        ports = element.get("ports")
        return not ports or any(one_port(one, destination, protocol, port, "TCP") for one in ports)
    if element.get("icmps"):
        fields = [field for icmp in element["icmps"] for field in icmp.get("fields") or []]
        numbers = {"IPv4": 1, "IPv6": 58}
        return any(numbers[f.get("family", "IPv4")] == protocol and int(f["type"]) == port for f in fields)
    if not element.get("toPorts"):
        return True
    for rule in element["toPorts"]:
        l7 = any((rule.get("rules") or {}).values())
        special = any(rule.get(name) for name in ("terminatingTLS", "originatingTLS", "serverNames", "listener"))
        if l7 or special:
            continue  # known, not enforced: it opens nothing
        if not rule.get("ports") or any(one_port(one, destination, protocol, port, "ANY") for one in rule["ports"]):
            return True
    return False


def one_port(one: dict[str, Any], destination: Party, protocol: int, port: int, default: str) -> bool:
    """Whether a port of a manifest is this one."""
    name = one.get("protocol", default)
    value = one.get("port")
    if value is None or str(value) == "0":
        return name == "ANY" or protocol in PROTOCOLS[name]
    if protocol not in PROTOCOLS[name]:
        return False
    if not str(value).isdigit():
        return any((k, p, n) == (value, protocol, port) for k, (p, n) in destination.get("ports", {}).items())
    return int(value) <= port <= int(one.get("endPort") or value)
