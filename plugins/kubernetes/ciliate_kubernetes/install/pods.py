"""What a pod's status says of it."""

from __future__ import annotations

from ciliate.store import Object


def is_ready(pod: Object) -> bool:
    """Whether a pod's condition Ready is true."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def why(pod: Object) -> str:
    """Why a pod is not ready, from its containers."""
    return "; ".join(problems_of(pod)) or str((pod.get("status") or {}).get("phase", "unknown"))


def problems_of(pod: Object) -> list[str]:
    """What a pod's status says is wrong with it."""
    status = pod.get("status") or {}
    found = []
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        for name in ("waiting", "terminated"):
            state = (container.get("state") or {}).get(name)
            if state and state.get("exitCode") != 0:
                last = ((container.get("lastState") or {}).get("terminated") or {}).get("message", "")
                said = state.get("message") or last
                reason = state.get("reason", name)
                lines = said.strip().splitlines()
                found.append(f"container {container['name']}: {reason}{f': {lines[-1]}' if lines else ''}")
    unscheduled = [c for c in status.get("conditions") or () if c["type"] == "PodScheduled" and c["status"] != "True"]
    return found + [f"not scheduled: {c.get('message', c.get('reason', ''))}" for c in unscheduled]
