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
    result: Object = _merge(live, last if isinstance(last, dict) else {}, given)
    result["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
    return _annotated(result, wanted)


def _merge(live: Any, last: Any, wanted: Any) -> Any:
    if not isinstance(live, dict) or not isinstance(wanted, dict):
        return wanted
    before = last if isinstance(last, dict) else {}
    kept = {key: value for key, value in live.items() if key in wanted or key not in before}
    return {**kept, **{key: _merge(live.get(key), before.get(key), value) for key, value in wanted.items()}}


def _annotated(obj: Object, manifest: Object) -> Object:
    plain = {key: value for key, value in manifest.items() if key != "status"}
    annotations = {k: v for k, v in (plain["metadata"].get("annotations") or {}).items() if k != LAST_APPLIED}
    metadata = {key: value for key, value in plain["metadata"].items() if key != "annotations"}
    if annotations:
        metadata["annotations"] = annotations
    text = json.dumps({**plain, "metadata": metadata}, separators=(",", ":"), sort_keys=True)
    stored = {**(obj["metadata"].get("annotations") or {}), LAST_APPLIED: text}
    return {**obj, "metadata": {**obj["metadata"], "annotations": stored}}


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
