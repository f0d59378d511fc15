"""What a policy's status says: the conditions Valid, Enforced and Unsupported. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ciliate.model.policy_report import ENFORCED, UNSUPPORTED, VALID
from ciliate.review import Finding, Severity

Condition = dict[str, Any]
NAMED = 5
"""How many nodes or elements a message names; the others it counts."""
MESSAGE_MOST = 2048


def conditions_for(
    generation: int, findings: Sequence[Finding], enforced: int, nodes: int, lacking: Iterable[str]
) -> list[Condition]:
    """All that there is to say of a generation. enforced: on how many of `nodes` nodes it is; lacking: the others."""
    invalid = [one for one in findings if one.severity is Severity.INVALID]
    unsupported = [one for one in findings if one.severity is Severity.UNSUPPORTED]
    found = [
        _condition(VALID, False, "Invalid", sentences(invalid), generation)
        if invalid
        else _condition(VALID, True, "Succeeded", "Policy validation succeeded", generation)
    ]
    if unsupported:
        found.append(_condition(UNSUPPORTED, True, "ElementsNotEnforced", sentences(unsupported), generation))
    about = f"generation {generation} is"
    if invalid:
        found.append(_condition(ENFORCED, False, "Invalid", f"{about} not enforced: {sentences(invalid)}", generation))
    elif not nodes:
        found.append(_condition(ENFORCED, False, "NoNodes", f"{about} not enforced: there are no nodes", generation))
    else:
        names = sorted(lacking)
        message = f"{about} enforced on {enforced} of {nodes} nodes" + (f"; not on {_some(names)}" if names else "")
        reason = "NodesLacking" if names else "EnforcedOnAllNodes"
        found.append(_condition(ENFORCED, not names, reason, message, generation))
    return found


def sentences(findings: Iterable[Finding]) -> str:
    """Findings as one text, each with its path."""
    return _some([f"{one.path}: {one.message}" for one in findings], "; ")


def with_conditions(status: Mapping[str, Any], wanted: Sequence[Condition]) -> dict[str, Any] | None:
    """What is to change in a status, that it says what is wanted besides what others say; None: it does so already."""
    known = _conditions(status)
    fresh = []
    for condition in wanted:
        old = known.get(condition["type"], {})
        if all(old.get(key) == value for key, value in condition.items()):
            fresh.append(old)
            continue
        same = old.get("status") == condition["status"]
        fresh.append({**condition, "lastTransitionTime": old.get("lastTransitionTime") if same else _now()})
    ours = (VALID, ENFORCED, UNSUPPORTED)
    kept = [one for type_, one in known.items() if type_ not in ours]
    if [*kept, *fresh] == status.get("conditions"):
        return None
    return {"conditions": [*kept, *fresh]}


def _conditions(status: Mapping[str, Any]) -> dict[str, Condition]:
    """Conditions by type; what somebody has edited into something else is not seen."""
    found = status.get("conditions")
    listed = found if isinstance(found, list) else []
    return {str(one["type"]): one for one in listed if isinstance(one, dict) and "type" in one}


def _condition(type_: str, holds: bool, reason: str, message: str, generation: int) -> Condition:
    return {
        "type": type_,
        "status": "True" if holds else "False",
        "reason": reason,
        "message": message[:MESSAGE_MOST],
        "observedGeneration": generation,
    }


def _some(texts: Sequence[str], separator: str = ", ") -> str:
    more = len(texts) - NAMED
    return separator.join(texts[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
