"""An API server with our kinds, an operator on it, and nodes' agents as far as they speak with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from ciliate.config import Settings
from ciliate.host import Host

from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.crds.registered import registered

ELECTION = {
    "leader_election_lease_duration": 3,
    "leader_election_renew_deadline": 2,
    "leader_election_retry_period": 0.2,
}
PLUGINS = {"operator": ["cni", "ipam", "policy", "kubernetes", "crds"], "agent": ["ipam", "kubernetes", "crds"]}


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """A control plane that knows our kinds, and forgets them afterwards."""
    with registered(control_plane):
        yield control_plane


@asynccontextmanager
async def process(plane: ControlPlane, folder: Path, role: str, name: str, **sections: Any) -> AsyncIterator[Host]:
    """An operator or an agent in this process, with its plugins that need no kernel."""
    run = folder / f"{role}-{name}"
    tree = {
        "plugins": PLUGINS[role],
        "node": {"name": name, "run_dir": str(run), "state_dir": str(run), "bpffs": str(folder)},
        "store": {"driver": "kubernetes", "kubeconfig": str(plane.kubeconfig)},
        "events": {"drain": "none"},
        "operator": ELECTION,
        "ipam": {
            "cluster_pool_ipv4_cidr": "10.77.0.0/16", "cluster_pool_ipv6_cidr": "fd77::/104",
            "cluster_pool_assigned_by": "operator", "nodes_gc_interval": 0.3,
        },
        "policy": {"identity_gc_interval": 0.3, "identity_heartbeat_timeout": 1.0},
        "cni": {"endpoint_gc_interval": 0.3},
        **sections,
    }  # fmt: skip
    settings = Settings()
    settings.set("", tree, "test")
    host = Host.load(settings, role, role)
    await host.start()
    try:
        assert not host.loaded.refused, host.loaded.refused
        yield host
    finally:
        await host.stop()
