"""What the API server would enforce on objects: names, labels, generations, finalizers, conflicts. Pure functions.

None of them changes its arguments' nested parts; each takes and gives whole objects.
"""

from __future__ import annotations

import datetime
import random
import re
import uuid
from collections.abc import Mapping
from typing import Any

from ciliate.store import ConflictError, InvalidError, Kind, Object, ObjectKey

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
_NAMESPACE_KIND = ("v1", "Namespace")
_NAMESPACE_LABEL = "kubernetes.io/metadata.name"

FIRST_NAMESPACES = ("default", "kube-system")
"""Namespaces that a new store begins with, as a new cluster does."""


def where(kind: Kind, namespace: str, name: str) -> str:
    """How an object is called in messages, as `ciliumnetworkpolicies default/web`."""
    return f"{kind.plural} {namespace}/{name}" if namespace else f"{kind.plural} {name}"


def now() -> str:
    """The present time as Kubernetes writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def generated_name(prefix: str) -> str:
    """A new name that begins with `prefix`."""
    suffix = "".join(random.choices(_SUFFIX_LETTERS, k=_SUFFIX_LENGTH))
    return prefix[: 63 - _SUFFIX_LENGTH] + suffix


def check_shape(kind: Kind, obj: Mapping[str, Any], generate: bool = False) -> None:
    """Refuse an object with malformed metadata. With `generate`, generateName will do for a name."""
    meta = obj.get("metadata")
    if not isinstance(meta, dict):
        raise InvalidError(f"{kind.kind}: metadata is missing or not a map")
    for key in ("name", "namespace", "generateName", "uid", "resourceVersion"):
        if not isinstance(meta.get(key, ""), str):
            raise InvalidError(f"{kind.kind}: metadata.{key} must be a string, not {meta[key]!r}")
    name, prefix, namespace = meta.get("name", ""), meta.get("generateName", ""), meta.get("namespace", "")
    if name or not (generate and prefix):
        _check_name(kind, "metadata.name", name)
    else:
        _check_name(kind, "metadata.generateName", prefix + "x")
    _check_namespace(kind, name or prefix, namespace)
    _check_labels(kind, name or prefix, meta)
    finalizers = meta.get("finalizers") or []
    if not isinstance(finalizers, list) or not all(isinstance(f, str) and f for f in finalizers):
        raise InvalidError(f"{where(kind, namespace, name)}: metadata.finalizers must be a list of strings")


def named(kind: Kind, changes: Mapping[str, Any]) -> ObjectKey:
    """The object that a patch is for. Raises InvalidError."""
    meta = changes.get("metadata")
    if not isinstance(meta, dict) or not isinstance(meta.get("name"), str) or not meta["name"]:
        raise InvalidError(f"{kind.kind}: a patch must say which object is meant: metadata.name is missing")
    namespace = meta.get("namespace", "")
    _check_namespace(kind, meta["name"], namespace)
    return ObjectKey(namespace, meta["name"])


def _check_name(kind: Kind, path: str, name: str) -> None:
    is_namespace = (kind.api_version, kind.kind) == _NAMESPACE_KIND
    pattern, limit = (_DNS_LABEL, 63) if is_namespace else (_SUBDOMAIN, 253)
    if not name:
        raise InvalidError(f"{kind.kind}: {path} is missing")
    if len(name) > limit or not pattern.fullmatch(name):
        raise InvalidError(
            f"{kind.kind}: {path} {name[:260]!r} must be at most {limit} lower-case letters, digits, '-'"
            f"{'' if is_namespace else ' or dots'}, and begin and end with a letter or digit"
        )


def _check_namespace(kind: Kind, name: str, namespace: str) -> None:
    if kind.namespaced and not namespace:
        raise InvalidError(f"{kind.kind} {name}: metadata.namespace is missing; {kind.plural} belong to a namespace")
    if not kind.namespaced and namespace:
        raise InvalidError(
            f"{kind.kind} {name}: metadata.namespace {namespace!r} given, but {kind.plural} have no namespace"
        )
    if namespace and (len(namespace) > 63 or not _DNS_LABEL.fullmatch(namespace)):
        raise InvalidError(
            f"{kind.kind} {name}: metadata.namespace {namespace[:80]!r} is not a DNS label of at most 63 characters"
        )


def _check_labels(kind: Kind, name: str, meta: Mapping[str, Any]) -> None:
    for part in ("labels", "annotations"):
        pairs = meta.get(part) or {}
        if not isinstance(pairs, dict):
            raise InvalidError(f"{kind.kind} {name}: metadata.{part} must be a map of strings")
        for key, value in pairs.items():
            if not isinstance(value, str):
                raise InvalidError(
                    f"{kind.kind} {name}: metadata.{part}[{key}] must be a string, not {value!r}: quote it"
                )
    for key, value in (meta.get("labels") or {}).items():
        prefix, slash, last = key.rpartition("/")
        if (
            len(last) > 63
            or not _QUALIFIED.fullmatch(last)
            or (slash and not (_SUBDOMAIN.fullmatch(prefix) and len(prefix) < 254))
        ):
            raise InvalidError(f"{kind.kind} {name}: metadata.labels: {key!r} is not a label key ([domain/]name)")
        if len(value) > 63 or (value and not _QUALIFIED.fullmatch(value)):
            raise InvalidError(
                f"{kind.kind} {name}: metadata.labels[{key}]: {value[:80]!r} must be at most 63 letters, digits,"
                " '-', '_' or '.', and begin and end with a letter or digit"
            )


def created(kind: Kind, obj: Object, name: str) -> Object:
    """The first state of an object (but for its revision). Only update_status sets a status, as in an API server."""
    meta = {k: v for k, v in obj["metadata"].items() if k not in ("deletionTimestamp", "deletionGracePeriodSeconds")}
    meta.update(name=name, uid=str(uuid.uuid4()), creationTimestamp=now(), generation=1)
    result = {**obj, "metadata": _with_own_labels(kind, meta)}
    if kind.has_status:
        result.pop("status", None)
    return result


def updated(kind: Kind, old: Object, obj: Object) -> Object:
    """The next state: all of `obj` but status and what only the store sets. Raises ConflictError, InvalidError."""
    check_preconditions(kind, old, obj["metadata"])
    old_meta = old["metadata"]
    meta = dict(obj["metadata"])
    for key in (
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
        "managedFields",
    ):
        meta.pop(key, None)
        if key in old_meta:
            meta[key] = old_meta[key]
    if "deletionTimestamp" in old_meta:
        added = set(meta.get("finalizers") or ()) - set(old_meta.get("finalizers") or ())
        if added:
            raise InvalidError(
                f"{_called(kind, old)} is being deleted: finalizers {', '.join(sorted(added))} can't be added"
            )
    result = {**obj, "metadata": _with_own_labels(kind, meta)}
    if kind.has_status:
        result.pop("status", None)
        if "status" in old:
            result["status"] = old["status"]
    if _substance(result) != _substance(old):
        meta["generation"] = old_meta.get("generation", 0) + 1
    return result


def status_updated(kind: Kind, old: Object, obj: Object) -> Object:
    """The next state: `old` with the status of `obj`. Raises ConflictError, InvalidError."""
    if not kind.has_status:
        raise InvalidError(f"{kind.plural} have no status of their own: use update")
    check_preconditions(kind, old, obj["metadata"])
    result = {key: value for key, value in old.items() if key != "status"}
    if "status" in obj:
        result["status"] = obj["status"]
    return result


def deletion_marked(old: Object) -> Object:
    """The state while finalizers are waited for."""
    return {**old, "metadata": {**old["metadata"], "deletionTimestamp": now(), "deletionGracePeriodSeconds": 0}}


def is_finished(obj: Object) -> bool:
    """Whether an object goes away now: being deleted and with no finalizer left."""
    return "deletionTimestamp" in obj["metadata"] and not obj["metadata"].get("finalizers")


def check_preconditions(kind: Kind, old: Object, meta: Mapping[str, Any]) -> None:
    """Refuse a write meant for another revision or another object of the same name. Raises ConflictError."""
    current = old["metadata"]
    if (uid := meta.get("uid")) and uid != current["uid"]:
        raise ConflictError(
            f"{_called(kind, old)} has uid {current['uid']}, not {uid}: it was deleted and made anew; read it again"
        )
    revision = meta.get("resourceVersion")
    if revision and revision != current["resourceVersion"]:
        raise ConflictError(
            f"{_called(kind, old)} has changed: it is at revision {current['resourceVersion']}, not {revision};"
            " read it again"
        )


def _called(kind: Kind, obj: Object) -> str:
    return where(kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def _substance(obj: Object) -> Object:
    """What an object asks for: all but metadata and status."""
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def _with_own_labels(kind: Kind, meta: dict[str, Any]) -> dict[str, Any]:
    """A namespace carries its name as a label, whatever its manifest says: selectors rely on it."""
    if (kind.api_version, kind.kind) == _NAMESPACE_KIND:
        meta["labels"] = {**(meta.get("labels") or {}), _NAMESPACE_LABEL: meta["name"]}
    return meta
