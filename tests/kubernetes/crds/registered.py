"""Our kinds on a control plane for the time of a block."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from ciliate_kubernetes.crds.kinds import DEFINITIONS
from ciliate_kubernetes.crds.registration import register_all
from ciliate_kubernetes.install.kinds import CUSTOM_RESOURCE_DEFINITION
from ciliate_kubernetes.store.driver import KubernetesStore

from tests.kubernetes.control_plane import ControlPlane

NAMES = [definition.name for definition in DEFINITIONS]


@contextmanager
def registered(plane: ControlPlane) -> Iterator[None]:
    """Register all as the operator does, wait until they are served, and remove them with all their objects."""
    assert asyncio.run(_register(plane)) == []
    served = [f"crd/{name}" for name in NAMES]
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", *served, limit=70)
    try:
        yield
    finally:
        plane.kubectl("delete", "crd", "--ignore-not-found", "--timeout=60s", *NAMES, limit=70)


async def _register(plane: ControlPlane) -> list[str]:
    store = KubernetesStore({"kubeconfig": str(plane.kubeconfig)}, (CUSTOM_RESOURCE_DEFINITION,))
    try:
        return await register_all(store)
    finally:
        await store.close()
