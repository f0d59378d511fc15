"""Why a packet is let through or dropped: the deciding entry of each side, its rules, and all rules that apply."""

from __future__ import annotations

from typing import Any

from ciliate.model.identity import Reserved
from ciliate.model.policy import Direction, Rule

from ciliate_policy.engine import Engine
from ciliate_policy.entries import prefix_bits
from ciliate_policy.resolve import ANYBODY, L4
from ciliate_policy.rule_sets import RuleSets
from ciliate_policy.rules import ICMP, ICMPV6, PROTOCOL_NAMES, PROTOCOLS
from ciliate_policy.selectors import label_map


class PortSpecError(ValueError):
    """A port/protocol text that can't be understood."""


def parse_port(text: str) -> tuple[int, int]:
    """(protocol, port) of `80/tcp`; `8/icmp` is a type of ICMP; without a protocol TCP is meant."""
    number, _, name = text.partition("/")
    protocols = {key.lower(): value for key, value in PROTOCOLS.items()} | {"icmp": ICMP, "icmpv6": ICMPV6, "": 6}
    if not number.isdecimal() or name.lower() not in protocols or int(number) > 65535:
        raise PortSpecError(f"port {text!r} is not understood; write 80/tcp, 53/udp, 5000/sctp, 8/icmp or 128/icmpv6")
    return protocols[name.lower()], int(number)


def match_type(identity: int, key: L4) -> str:
    """Which kind of entry decided, in Cilium's words."""
    bits = prefix_bits(key)
    if identity != ANYBODY:
        return "L3-Only" if bits == 0 else "L3-Proto" if bits == 8 else "L3-L4"
    return "all" if bits == 0 else "Proto-Only" if bits == 8 else "L4-Only"


def explain_direction(
    engine: Engine, rule_sets: RuleSets, direction: Direction, endpoint: int, peer: int, protocol: int, port: int,
    audit: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The verdict of one endpoint's policy on a packet from or to a peer identity, in JSON's terms."""
    policies = engine.realised[endpoint]
    resolved = policies.ingress if direction is Direction.INGRESS else policies.egress
    found = resolved.lookup(peer, protocol, port)
    answer: dict[str, Any] = {
        "direction": direction.name.lower(),
        "enforcing": resolved.key.enforcing,
        "applying": [_rule(element.rule, element.deny) for element in resolved.applying(peer, protocol, port)],
    }
    if found is None:
        answer["enforced_by"] = _enforced_by(engine, direction, endpoint)
        answer |= {"verdict": "denied", "reason": "Policy denied", "match": "none", "entry": None}
        number = rule_sets.default(direction, policies.defaults[direction])
        rules, deny = rule_sets.rules(number), True
    else:
        identity, key, value = found
        rules, deny = value.rules, value.deny
        number = rule_sets.number(rules)
        answer |= {
            "verdict": "denied" if deny else "allowed",
            "reason": "Policy denied by denylist" if deny else "",
            "match": match_type(identity, key),
            "entry": _entry(identity, key),
        }
    answer |= {"rule_set": number, "rules": [_rule(rule, deny) for rule in rules]}
    if audit and answer["verdict"] == "denied":
        answer["verdict"] = "audited"
    return answer


def _enforced_by(engine: Engine, direction: Direction, endpoint: int) -> list[str]:
    """What put an endpoint into default deny: the policies, or else the mode or the label that does so for all."""
    labels = label_map(engine.labels[engine.endpoints[endpoint].identity])
    policies = [
        str(policy.key)
        for policy in engine.policies.values()
        for rule in policy.rules
        if rule.default_deny[direction] and rule.subject is not None and rule.subject.matches(labels)
    ]
    if policies:
        return sorted(set(policies))
    return ["enable_policy: always"] if engine.options.enable_policy == "always" else [Reserved.INIT.label]


def overall(sides: list[dict[str, Any] | None]) -> str:
    """The verdict over both sides: denied by either is denied; `unknown` if no side is known here."""
    verdicts = {side["verdict"] for side in sides if side is not None}
    return next((one for one in ("denied", "audited", "allowed") if one in verdicts), "unknown")


def _entry(identity: int, key: L4) -> dict[str, Any]:
    protocol, port, length = key
    return {
        "identity": identity,
        "protocol": PROTOCOL_NAMES.get(protocol, str(protocol)),
        "port": port if protocol and length else None,
        "prefix_length": length,
    }


def _rule(rule: Rule, deny: bool) -> dict[str, Any]:
    return {
        "path": rule.path,
        "action": "deny" if deny else "allow",
        "kind": rule.kind,
        "namespace": rule.namespace,
        "name": rule.name,
        "generation": rule.generation,
        "section": rule.direction,
        "index": rule.index,
    }
