"""Fixtures of the tests on a real Kubernetes: control planes, and whole clusters; each ended, with nothing left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.installation import Installation
from tests.kubernetes.programs import CLUSTER, CONTROL_PLANE, build_all, reason_not_to_run

_NODES = {"installation", "make_cluster"}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the chosen tests need, before any test's time limit begins: minutes, the first time."""
    if session.config.option.collectonly:
        return
    fixtures = {
        name
        for item in session.items
        if item.path.is_relative_to(__file__.rpartition("/")[0])
        for name in getattr(item, "fixturenames", ())
    }
    for names, wanted, nodes in (
        (CLUSTER, _NODES, True),
        (CONTROL_PLANE, {"control_plane", "make_control_plane"}, False),
    ):
        if fixtures & wanted and reason_not_to_run(nodes=nodes) is None:
            build_all(names)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """etcd and kube-apiserver on loopback ports of this machine, shared by all tests of the run.

    Work in a namespace of the test's own; what has none (CRDs, nodes) the test removes.
    """
    yield from _made({})


@pytest.fixture
def make_control_plane() -> Iterator[Callable[..., ControlPlane]]:
    """A function that starts a control plane of the test's own; its arguments are ControlPlane's."""
    made: list[Iterator[ControlPlane]] = []

    def make(**arguments: Any) -> ControlPlane:
        made.append(_made(arguments))
        return next(made[-1])

    yield make
    for plane in reversed(made):
        assert next(plane, None) is None


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """A cluster of two nodes with Ciliate installed, shared by all tests of the run.

    Pods that a test makes it deletes; what it changes it puts back.
    """
    if reason := reason_not_to_run(nodes=True):
        pytest.skip(reason)
    installation = Installation()
    try:
        installation.start()
        yield installation
    finally:
        installation.cluster.close()
    assert installation.cluster.left() == []


@pytest.fixture
def make_cluster() -> Iterator[Callable[..., Cluster]]:
    """A function that starts a whole cluster of the test's own; its arguments are Cluster's."""
    made: list[Iterator[Cluster]] = []

    def make(**arguments: Any) -> Cluster:
        made.append(_made_cluster(arguments))
        return next(made[-1])

    yield make
    for cluster in reversed(made):
        assert next(cluster, None) is None


def _made_cluster(arguments: dict[str, Any]) -> Iterator[Cluster]:
    if reason := reason_not_to_run(nodes=True):
        pytest.skip(reason)
    cluster = Cluster(**arguments)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
    assert cluster.left() == []


def _made(arguments: dict[str, Any]) -> Iterator[ControlPlane]:
    if reason := reason_not_to_run(nodes=False):
        pytest.skip(reason)
    plane = ControlPlane(**arguments)
    try:
        plane.start()
        yield plane
    finally:
        plane.close()
