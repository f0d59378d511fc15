"""An API server that knows our kinds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.crds.registered import registered
from tests.kubernetes.kubectl import Kubectl


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane) -> Iterator[Kubectl]:
    """kubectl, on an API server with our kinds, which go afterwards."""
    with registered(control_plane):
        yield control_plane.kubectl
