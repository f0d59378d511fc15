"""Records of the data path as JSON-able objects, and which of them a monitor wants. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ciliate.api.routes import ApiError
from ciliate.model.base import unpack_address
from ciliate.model.conntrack import VERDICT_AUDIT, VERDICT_PROXY_SHIFT, ConntrackState, Leg
from ciliate.model.endpoint import EndpointPolicy
from ciliate.model.event import EventKind, MatchType, Point, TraceReason
from ciliate.model.policy import Direction, RuleSet
from ciliate.model.reasons import DropReason, reason_text
from numpy.typing import NDArray

PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
_TYPES = {"drop": EventKind.DROP, "trace": EventKind.TRACE, "policy-verdict": EventKind.VERDICT, "sock": EventKind.SOCK}
_ZERO = bytes(16)


def flow(table: str, key: Any, entry: Any) -> dict[str, Any]:
    """A conntrack entry, its ends in the flow's original direction."""
    first, second = ("a", "b") if int(entry["origin"]) == 0 else ("b", "a")
    began = 0 if first == "a" else 1
    word = int(entry["word"])
    return {
        "table": table,
        "protocol": protocol(int(key["protocol"])),
        "leg": name_of(Leg, int(key["leg"])),
        "source": address(key[first]),
        "source_port": int(key[f"port_{first}"]),
        "destination": address(key[second]),
        "destination_port": int(key[f"port_{second}"]),
        "state": name_of(ConntrackState, int(entry["state"])),
        "source_endpoint": int(entry["endpoint"][began]),
        "destination_endpoint": int(entry["endpoint"][1 - began]),
        "source_identity": int(entry["identity"][began]),
        "destination_identity": int(entry["identity"][1 - began]),
        "audited": bool(word & VERDICT_AUDIT),
        "proxy_port": word >> VERDICT_PROXY_SHIFT,
        "rule_set_egress": int(entry["rule_set"][0]),
        "rule_set_ingress": int(entry["rule_set"][1]),
        "packets": [int(n) for n in entry["packets"]],
        "bytes": [int(n) for n in entry["bytes"]],
        "tcp_flags": [tcp_flags(int(n)) for n in entry["tcp_flags"]],
        "service": int(entry["service"]),
    }


def event(record: Any) -> dict[str, Any]:
    """An event record, with names for its numbers; `reason` and `drop_reason` of a drop only."""
    kind = int(record["kind"])
    verdicts = int(record["verdicts"])
    shown: dict[str, Any] = {
        "time": int(record["time"]),
        "type": next((name for name, number in _TYPES.items() if number == kind), str(kind)),
        "point": name_of(Point, int(record["point"])),
        "protocol": protocol(int(record["protocol"])),
        "source": address(record["source"]),
        "destination": address(record["destination"]),
        "source_port": int(record["source_port"]),
        "destination_port": int(record["destination_port"]),
        "source_endpoint": int(record["source_endpoint"]),
        "destination_endpoint": int(record["destination_endpoint"]),
        "source_identity": int(record["source_identity"]),
        "destination_identity": int(record["destination_identity"]),
        "egress": bool(verdicts & 1),
        "ingress": bool(verdicts & 2),
        "audited": bool(verdicts & 4),
        "reply": bool(verdicts & 16),
        "conntrack": name_of(TraceReason, int(record["ct_state"])),
        "tcp_flags": tcp_flags(int(record["tcp_flags"])),
        "match_egress": name_of(MatchType, int(record["match_egress"])),
        "match_ingress": name_of(MatchType, int(record["match_ingress"])),
        "rule_set_egress": int(record["rule_set_egress"]),
        "rule_set_ingress": int(record["rule_set_ingress"]),
        "packets": int(record["packets"]),
        "length": int(record["length"]),
        "ifindex": int(record["ifindex"]),
    }
    if kind == EventKind.DROP:
        shown["reason"] = int(record["reason"])
        shown["drop_reason"] = reason_text(int(record["reason"]))
        shown["direction"] = "egress" if int(record["direction"]) == Direction.EGRESS else "ingress"
        shown["file"], shown["line"] = int(record["file"]), int(record["line"])
    return shown


def named_rules(
    shown: dict[str, Any], rule_sets: Mapping[int, RuleSet], policies: Mapping[int, EndpointPolicy]
) -> dict[str, Any]:
    """An event with the paths of the rules that decided: of each side that was judged, or of the one that denied.

    What no entry allows has no rule set of its own: then it is what switched default deny on for the endpoint.
    """
    named: dict[str, list[str]] = {"rules_egress": [], "rules_ingress": []}
    denied = shown.get("reason") in (DropReason.POLICY_DENIED, DropReason.POLICY_DENY)
    for side in (shown["direction"],) if denied else ("egress", "ingress"):
        number = shown[f"rule_set_{side}"]
        if number == 0 and (denied or (shown["audited"] and shown[side])):
            policy = policies.get(shown["source_endpoint" if side == "egress" else "destination_endpoint"])
            number = 0 if policy is None else policy.default_rule_set(Direction[side.upper()])
        known = rule_sets.get(number)
        if known is not None:
            named[f"rules_{side}"] = [rule.path for rule in known.rules]
        elif denied:
            named[f"rules_{side}"] = ["default-deny"]  # the endpoint is gone
    return {**shown, **named}


def selection(query: Mapping[str, str]) -> Callable[[NDArray[Any]], NDArray[np.bool_]]:
    """Which records of a batch a monitor wants: by type (comma-separated), and by endpoint id: from, to, related."""
    kinds = [_kind(name) for name in query.get("type", "").split(",") if name]
    source, destination, either = (_number(query, name) for name in ("from", "to", "related"))

    def keep(batch: NDArray[Any]) -> NDArray[np.bool_]:
        chosen = np.ones(len(batch), np.bool_)
        if kinds:
            chosen &= np.isin(batch["kind"], kinds)
        if source is not None:
            chosen &= batch["source_endpoint"] == source
        if destination is not None:
            chosen &= batch["destination_endpoint"] == destination
        if either is not None:
            chosen &= (batch["source_endpoint"] == either) | (batch["destination_endpoint"] == either)
        return chosen

    return keep


def protocol(number: int) -> str:
    """A protocol's name, or its number."""
    return PROTOCOLS.get(number, str(number))


def address(packed: NDArray[np.uint8]) -> str:
    """An address as text; empty for none."""
    raw = packed.tobytes()
    return "" if raw == _ZERO else str(unpack_address(raw))


def tcp_flags(flags: int) -> str:
    """Set flags, as SYN,ACK."""
    return ",".join(name for bit, name in enumerate(_FLAGS) if flags & 1 << bit)


def name_of(enumeration: Any, number: int) -> str:
    """A member's name in lower case with dashes, or the number of an unknown one."""
    try:
        return str(enumeration(number).name).lower().replace("_", "-")
    except ValueError:
        return str(number)


def _kind(name: str) -> int:
    if name not in _TYPES:
        raise ApiError(400, f"type {name!r}: known are {', '.join(_TYPES)}")
    return int(_TYPES[name])


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not text.isdigit():
        raise ApiError(400, f"{name} is {text!r}; it must be an endpoint's id")
    return int(text)
