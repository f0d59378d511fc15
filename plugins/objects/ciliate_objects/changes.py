"""Bringing objects into the store: what `apply` changes, and what it leaves to others."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from ciliate.cli.dispatch import CommandError
from ciliate.store import AlreadyExistsError, ConflictError, Kind, NotFoundError, Object, Store

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""The annotation with the manifest as it was applied last: what is gone from the manifest since is removed."""
_TRIES = 20
_ANNOTATION_BYTES = 262_144
"""Kubernetes' limit for annotations. A larger manifest is not noted: it replaces all but metadata and status."""
_SET_BY_STORE = frozenset(
    {"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"}
    | {"deletionTimestamp", "deletionGracePeriodSeconds"}
)


async def apply_object(store: Store, kind: Kind, wanted: Object) -> tuple[str, Object]:
    """(`created`, `configured` or `unchanged`, the object as stored). Raises StoreError."""
    meta = {key: value for key, value in wanted["metadata"].items() if key not in _SET_BY_STORE}
    wanted = {**wanted, "metadata": meta}
    for _ in range(_TRIES):
        try:
            live = await store.get(kind, meta["name"], meta.get("namespace", ""))
        except NotFoundError:
            try:
                return "created", await store.create(_annotated(wanted, wanted))
            except AlreadyExistsError:
                continue
        try:
            stored = await store.update(merged(live, wanted))
        except (ConflictError, NotFoundError):
            continue
        same = stored["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]
        return "unchanged" if same else "configured", stored
    raise CommandError("somebody else changes it all the time; try again")


def merged(live: Object, wanted: Object) -> Object:
    """The live object with the manifest's values; what only others have set stays. Lists are replaced whole."""
    last: Any = None
    try:
        last = json.loads((live["metadata"].get("annotations") or {}).get(LAST_APPLIED, "null"))
    except ValueError:
        last = None  # somebody wrote nonsense there: nothing is known to have been removed
    given = {key: value for key, value in wanted.items() if key != "status"}
    if last is None and len(_note(wanted)) > _ANNOTATION_BYTES:
        last = {key: value for key, value in live.items() if key not in ("metadata", "status")}
    result: Object = _merge(live, last if isinstance(last, dict) else {}, given)
    result["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
    return _annotated(result, wanted)


def _merge(live: Any, last: Any, wanted: Any) -> Any:
    if not isinstance(live, dict) or not isinstance(wanted, dict):
        return wanted
    before = last if isinstance(last, dict) else {}
    kept = {key: value for key, value in live.items() if key in wanted or key not in before}
    return {**kept, **{key: _merge(live.get(key), before.get(key), value) for key, value in wanted.items()}}


def _note(manifest: Object) -> str:
    """A manifest as the annotation holds it: without itself and without what is not applied."""
    annotations = {k: v for k, v in (manifest["metadata"].get("annotations") or {}).items() if k != LAST_APPLIED}
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "annotations"}
    if annotations:
        metadata["annotations"] = annotations
    plain = {key: value for key, value in manifest.items() if key != "status"}
    return json.dumps({**plain, "metadata": metadata}, separators=(",", ":"), sort_keys=True)


def _annotated(obj: Object, manifest: Object) -> Object:
    annotations = {k: v for k, v in (obj["metadata"].get("annotations") or {}).items() if k != LAST_APPLIED}
    note = _note(manifest)
    if len(note) <= _ANNOTATION_BYTES:
        annotations[LAST_APPLIED] = note
    return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}


async def wait_gone(store: Store, kind: Kind, obj: Object, timeout: float) -> None:
    """Wait until an object's finalizers are done. Raises CommandError."""
    meta = obj["metadata"]
    try:
        async with asyncio.timeout(timeout):
            while (await store.get(kind, meta["name"], meta.get("namespace", "")))["metadata"]["uid"] == meta["uid"]:
                await asyncio.sleep(0.02)
    except NotFoundError:
        return
    except TimeoutError:
        waits = ", ".join(meta.get("finalizers") or ())
        raise CommandError(
            f"is not gone after {timeout:g} s: it waits for {waits or 'somebody'} to let it go"
        ) from None
