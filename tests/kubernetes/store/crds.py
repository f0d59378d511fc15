"""Custom resource definitions of the tests' own kinds."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from ciliate.store import AlreadyExistsError, Kind, NotFoundError, Object, Store

CRD = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", False)


def crd(kind: Kind, versions: tuple[str, ...] = (), schema: dict[str, Any] | None = None) -> Object:
    """The definition of a kind. versions: others that are served too, the last of all is stored."""
    group, _, version = kind.api_version.partition("/")
    loose = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = [version, *versions]
    names = {"plural": kind.plural, "kind": kind.kind, "singular": kind.kind.lower()}
    return {
        "apiVersion": CRD.api_version,
        "kind": CRD.kind,
        "metadata": {"name": f"{kind.plural}.{group}"},
        "spec": {
            "group": group,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [
                {
                    "name": one,
                    "served": True,
                    "storage": one == served[-1],
                    "schema": {"openAPIV3Schema": schema or loose},
                    **({"subresources": {"status": {}}} if kind.has_status else {}),
                }
                for one in served
            ],
        },
    }


async def install(store: Store, definition: Object) -> None:
    """Register a kind, and wait until it is served."""
    with contextlib.suppress(AlreadyExistsError):
        await store.create(definition)
    async with asyncio.timeout(30):
        while not is_established(await store.get(CRD, definition["metadata"]["name"])):
            await asyncio.sleep(0.05)


async def remove(store: Store, definition: Object) -> None:
    """Take a kind away, with all its objects, and wait until it is gone."""
    name = definition["metadata"]["name"]
    try:
        await store.delete(CRD, name)
        async with asyncio.timeout(30):
            while await store.get(CRD, name):
                await asyncio.sleep(0.05)
    except NotFoundError:
        return


def is_established(definition: Object) -> bool:
    """Whether a definition's kind is served."""
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
