"""Stores on a real API server, and namespaces to work in."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from ciliate.store import AlreadyExistsError, NotFoundError
from ciliate_kubernetes.store.driver import KubernetesStore

from tests.contracts.store import GADGET, KINDS, WIDGET
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.store.crds import CRD, crd, install

OpenStore = Callable[..., KubernetesStore]
_numbers = itertools.count(1)


@pytest.fixture
async def open_store(control_plane: ControlPlane) -> AsyncIterator[OpenStore]:
    """Opens stores with other options than usual; all are closed at the end."""
    opened: list[KubernetesStore] = []

    def open_one(**options: Any) -> KubernetesStore:
        settings = {"kubeconfig": str(control_plane.kubeconfig), **options}
        opened.append(KubernetesStore(settings, (*KINDS, CRD)))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> KubernetesStore:
    """One store, whose API server knows the tests' kinds."""
    store = open_store()
    for kind in (WIDGET, GADGET):
        await install(store, crd(kind))
    return store


@pytest.fixture
async def space(store: KubernetesStore) -> AsyncIterator[str]:
    """A namespace of the test's own; there is a second one, with `-2` behind its name."""
    name = f"space{next(_numbers)}"
    await make_spaces(store, name)
    yield name
    for where in (name, f"{name}-2"):
        await clear(store, where)


async def make_spaces(store: KubernetesStore, name: str) -> None:
    """Two namespaces."""
    for where in (name, f"{name}-2"):
        try:
            await store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": where}})
        except AlreadyExistsError:
            await clear(store, where)


async def clear(store: KubernetesStore, space: str) -> None:
    """Remove the widgets of a namespace. (No controller is there to remove a namespace with all that is in it.)"""
    found = (await store.list(WIDGET.only("metadata.finalizers"), space)).items
    for obj in found:
        meta = obj["metadata"]
        if meta.get("finalizers"):
            await store.patch(WIDGET, {"metadata": {"name": meta["name"], "namespace": space, "finalizers": None}})
    await asyncio.gather(*(_delete(store, obj["metadata"]["name"], space) for obj in found))


async def _delete(store: KubernetesStore, name: str, space: str) -> None:
    with contextlib.suppress(NotFoundError):
        await store.delete(WIDGET, name, space)
