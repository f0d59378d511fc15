"""An API server that knows our kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from ciliate_kubernetes.crds.kinds import DEFINITIONS
from ciliate_kubernetes.crds.registration import register_all
from ciliate_kubernetes.install.kinds import CUSTOM_RESOURCE_DEFINITION
from ciliate_kubernetes.store.driver import KubernetesStore

from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.kubectl import Kubectl

NAMES = [definition.name for definition in DEFINITIONS]


@asynccontextmanager
async def opened(plane: ControlPlane) -> AsyncIterator[KubernetesStore]:
    """A store on a control plane."""
    store = KubernetesStore({"kubeconfig": str(plane.kubeconfig)}, (CUSTOM_RESOURCE_DEFINITION,))
    try:
        yield store
    finally:
        await store.close()


def registered(plane: ControlPlane) -> None:
    """Register all kinds as the operator does, and wait until they are served."""

    async def register() -> list[str]:
        async with opened(plane) as store:
            return await register_all(store)

    assert asyncio.run(register()) == []
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in NAMES), limit=70)


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane) -> Iterator[Kubectl]:
    """kubectl, on an API server with our kinds, which go afterwards."""
    registered(control_plane)
    yield control_plane.kubectl
    control_plane.kubectl("delete", "crd", "--ignore-not-found", "--timeout=60s", *NAMES, limit=70)
