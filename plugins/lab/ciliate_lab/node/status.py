"""A pod's status as Kubernetes writes it, from what is known of its container."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ciliate_lab.node.record import PodRecord


@dataclass(frozen=True)
class ContainerState:
    """Where a pod's container stands."""

    name: str
    running: bool = False
    ready: bool = False
    waiting: str = ""  # a reason, as ContainerCreating, CrashLoopBackOff
    message: str = ""
    exit_code: int | None = None  # of a container that is not started again
    unbound: tuple[str, ...] = field(default=())  # declared ports that nothing listens on


def timestamp(seconds: float | None = None) -> str:
    """A time as Kubernetes writes it; now, if none is given."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def pod_status(
    record: PodRecord, state: ContainerState, host_ips: list[str], previous: dict[str, Any]
) -> dict[str, Any]:
    """The status of a pod. Times of conditions that did not change are those of `previous`."""
    done = state.exit_code is not None
    phase = ("Succeeded" if state.exit_code == 0 else "Failed") if done else "Running" if state.running else "Pending"
    if state.waiting == "CrashLoopBackOff":
        phase = "Running"
    reason = (
        "PodCompleted" if done else state.waiting or ("PortsNotListening" if state.unbound else "ContainersNotReady")
    )
    why = state.message or (f"nothing listens on {', '.join(state.unbound)} yet" if state.unbound else "")
    conditions = [
        _condition("PodScheduled", True, "", "", previous),
        _condition("PodReadyToStartContainers", record.result is not None, state.waiting, state.message, previous),
        _condition("Initialized", True, "", "", previous),
        _condition("ContainersReady", state.ready, reason, why, previous),
        _condition("Ready", state.ready, reason, why, previous),
    ]
    status: dict[str, Any] = {
        "phase": phase,
        "conditions": conditions,
        "hostIP": host_ips[0],
        "hostIPs": [{"ip": ip} for ip in host_ips],
        "startTime": previous.get("startTime") or timestamp(),
        "containerStatuses": [_container(record, state)],
    }
    if record.addresses:
        status["podIP"] = record.addresses[0]
        status["podIPs"] = [{"ip": ip} for ip in record.addresses]
    return status


def _container(record: PodRecord, state: ContainerState) -> dict[str, Any]:
    started = timestamp(record.started)
    if state.running:
        now: dict[str, Any] = {"running": {"startedAt": started}}
    elif state.exit_code is not None:
        now = {"terminated": {"exitCode": state.exit_code, "reason": "Error" if state.exit_code else "Completed"}}
    else:
        now = {"waiting": {"reason": state.waiting, "message": state.message}}
    last = (
        {"terminated": {"exitCode": record.last_code}} if record.last_code is not None and not state.exit_code else {}
    )
    return {
        "name": state.name,
        "containerID": f"lab://{record.container_id}",
        "image": "",
        "imageID": "",
        "ready": state.ready,
        "started": state.running,
        "restartCount": record.restarts,
        "state": now,
        "lastState": last,
    }


def _condition(kind: str, holds: bool, reason: str, message: str, previous: dict[str, Any]) -> dict[str, Any]:
    status = "True" if holds else "False"
    condition: dict[str, Any] = {"type": kind, "status": status, "lastTransitionTime": timestamp()}
    for old in previous.get("conditions") or []:
        if old["type"] == kind and old["status"] == status:
            condition["lastTransitionTime"] = old.get("lastTransitionTime", condition["lastTransitionTime"])
    if not holds:
        condition.update(reason=reason, message=message)
    return condition
