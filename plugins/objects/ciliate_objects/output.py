"""Showing objects: tables with the columns that kubectl shows, JSON, YAML, names."""

from __future__ import annotations

import datetime
import enum
import json
from collections.abc import Callable, Sequence
from typing import Any

import yaml
from ciliate.store import Kind, Object

from ciliate_objects.kinds import called

Column = tuple[str, Callable[[Object], str]]


class Format(enum.StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    WIDE = "wide"  # kubectl's habit; the table has all columns anyway
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def at(obj: Any, *path: str) -> Any:
    """A value inside an object, None if any part of the path is absent."""
    for part in path:
        obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def _text(*path: str, empty: str = "") -> Callable[[Object], str]:
    def show(obj: Object) -> str:
        value = at(obj, *path)
        return empty if value is None or value == "" else str(value)

    return show


def _condition(name: str, obj: Object) -> str:
    found: Object = next((c for c in at(obj, "status", "conditions") or () if c.get("type") == name), {})
    return str(found.get("status", ""))


def _node_address(kind: str) -> Callable[[Object], str]:
    def show(obj: Object) -> str:
        return ",".join(a["ip"] for a in at(obj, "spec", "addresses") or () if a.get("type") == kind)

    return show


def _ready_containers(pod: Object) -> str:
    wanted = len(at(pod, "spec", "containers") or ())
    states = at(pod, "status", "containerStatuses") or ()
    ready = sum(bool(s.get("ready")) for s in states) if states else wanted * (_condition("Ready", pod) == "True")
    return f"{ready}/{wanted}"


def _pod_status(pod: Object) -> str:
    if at(pod, "metadata", "deletionTimestamp"):
        return "Terminating"
    return str(at(pod, "status", "reason") or at(pod, "status", "phase") or "Pending")


def _pod_ips(pod: Object) -> str:
    ips = [one.get("ip", "") for one in at(pod, "status", "podIPs") or ()] or [at(pod, "status", "podIP") or ""]
    return ",".join(filter(None, ips)) or "<none>"


def _pod_selector(policy: Object) -> str:
    selector = at(policy, "spec", "podSelector") or {}
    labels = [f"{k}={v}" for k, v in sorted((selector.get("matchLabels") or {}).items())]
    terms = [
        f"{e.get('key')} {str(e.get('operator', '')).lower()} ({','.join(e.get('values') or ())})"
        for e in selector.get("matchExpressions") or ()
    ]
    return ",".join(labels + terms) or "<none>"


def _addressing(family: str) -> Callable[[Object], str]:
    def show(obj: Object) -> str:
        return ",".join(a[family] for a in at(obj, "status", "networking", "addressing") or () if a.get(family))

    return show


def _involved(event: Object) -> str:
    about = at(event, "involvedObject") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _enforcing(direction: str) -> Callable[[Object], str]:
    return lambda obj: str(at(obj, "status", "policy", direction, "enforcing") or False).lower()


def age(obj: Object, now: datetime.datetime | None = None) -> str:
    """How old an object is, as kubectl says it: 45s, 3m20s, 25m, 5h10m, 3d."""
    try:
        born = datetime.datetime.fromisoformat(str(at(obj, "metadata", "creationTimestamp")))
    except ValueError:
        return "<unknown>"
    seconds = max(0, int(((now or datetime.datetime.now(datetime.UTC)) - born).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d" if days < 730 else f"{days // 365}y"


_AGE: Column = ("AGE", age)
_VALID: Column = ("VALID", lambda policy: _condition("Valid", policy))
_ENFORCED: Column = ("ENFORCED", lambda policy: _condition("Enforced", policy))

_COLUMNS: dict[str, tuple[Column, ...]] = {
    "Pod": (
        ("READY", _ready_containers),
        ("STATUS", _pod_status),
        _AGE,
        ("IP", _pod_ips),
        ("NODE", _text("spec", "nodeName", empty="<none>")),
    ),
    "Node": (("STATUS", lambda node: "Ready" if _condition("Ready", node) == "True" else "NotReady"), _AGE),
    "Namespace": (("STATUS", _text("status", "phase", empty="Active")), _AGE),
    "NetworkPolicy": (("POD-SELECTOR", _pod_selector), _AGE),
    "CiliumNetworkPolicy": (_AGE, _VALID, _ENFORCED),
    "CiliumClusterwideNetworkPolicy": (_AGE, _VALID, _ENFORCED),
    "CiliumNode": (
        ("CILIUMINTERNALIP", _node_address("CiliumInternalIP")),
        ("INTERNALIP", _node_address("InternalIP")),
        _AGE,
    ),
    "Event": (
        ("LAST SEEN", lambda event: age({"metadata": {"creationTimestamp": event.get("lastTimestamp")}})),
        ("TYPE", _text("type")),
        ("REASON", _text("reason")),
        ("OBJECT", _involved),
        ("MESSAGE", _text("message")),
    ),
    "CiliumIdentity": (("NAMESPACE", _text("metadata", "labels", "io.kubernetes.pod.namespace")), _AGE),
    "CiliumEndpoint": (
        ("SECURITY IDENTITY", _text("status", "identity", "id")),
        ("INGRESS ENFORCEMENT", _enforcing("ingress")),
        ("EGRESS ENFORCEMENT", _enforcing("egress")),
        ("ENDPOINT STATE", _text("status", "state")),
        ("IPV4", _addressing("ipv4")),
        ("IPV6", _addressing("ipv6")),
    ),
}


def table(kind: Kind, objects: Sequence[Object], with_namespace: bool) -> str:
    """Objects of a kind as aligned columns."""
    columns: list[Column] = [("NAME", _text("metadata", "name")), *_COLUMNS.get(kind.kind, (_AGE,))]
    if with_namespace and kind.namespaced:
        columns.insert(0, ("NAMESPACE", _text("metadata", "namespace")))
    lines = [[title for title, _ in columns], *([show(obj) for _, show in columns] for obj in objects)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join("   ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def whole(objects: Sequence[Object], single: bool, form: Format) -> str:
    """Objects as JSON or YAML: one by itself, or a List."""
    shown: Any = objects[0] if single else {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": list(objects)}
    if form is Format.JSON:
        return json.dumps(shown, indent=4, ensure_ascii=False)
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120).rstrip("\n")


def names(kind: Kind, objects: Sequence[Object]) -> str:
    """A line an object: `pod/web`."""
    return "\n".join(called(kind, obj["metadata"]["name"]) for obj in objects)
