"""What this node has realised of a policy, in the object's status: `status.nodes.<node>`, and the condition Valid."""

from __future__ import annotations

import datetime
from typing import Any

from ciliate.model.policy import PolicyRevision
from ciliate.store import ConflictError, InvalidError, Kind, NotFoundError, Object, Store

ATTEMPTS = 20
"""How often an update is tried again when other nodes write the same object's status."""


async def write_status(store: Store, kind: Kind, row: PolicyRevision, node: str) -> bool:
    """Bring an object's status up to date; whether it is. Nothing is written where nothing is new.

    False: the object is gone, or its kind has no status. Raises StoreError.
    """
    for _ in range(ATTEMPTS):
        try:
            obj = await store.get(kind, row.name, row.namespace)
            wanted = with_status(obj, row, node)
            if wanted is None:
                return True
            await store.update_status(wanted)
        except ConflictError:
            continue
        except (NotFoundError, InvalidError):
            return False
        return True
    return False


def with_status(obj: Object, row: PolicyRevision, node: str) -> Object | None:
    """The object with this node's word in its status; None if it has it already, or is another object by now."""
    if obj["metadata"].get("uid", "") != row.uid:
        return None
    status = dict(obj.get("status") or {})
    nodes = dict(status.get("nodes") or {})
    entry = {
        "generation": row.generation,
        "enforced": row.enforced,
        "unsupported": list(row.unsupported),
        "message": row.invalid,
    }
    condition = _condition(status, row)
    if nodes.get(node) == entry and condition is None:
        return None
    nodes[node] = entry
    status["nodes"] = nodes
    if condition is not None:
        others = [one for one in status.get("conditions") or [] if one.get("type") != "Valid"]
        status["conditions"] = [*others, condition]
    return {**obj, "status": status}


def _condition(status: dict[str, Any], row: PolicyRevision) -> dict[str, Any] | None:
    """The condition Valid, None if the object says so already."""
    known: dict[str, Any] = next((one for one in status.get("conditions") or [] if one.get("type") == "Valid"), {})
    message = row.invalid or "Policy validation succeeded"
    value = "False" if row.invalid else "True"
    if (known.get("status"), known.get("message")) == (value, message):
        return None
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    reason = "Invalid" if row.invalid else "Succeeded"
    return {"type": "Valid", "status": value, "reason": reason, "message": message, "lastTransitionTime": now}
