"""An agent with the policy plugin alone, in this process, on real maps and a real store."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from ciliate.config import Settings
from ciliate.host import Host
from ciliate.model.endpoint import ENDPOINT_POLICIES, ENDPOINT_STAMPS_MAP, ENDPOINTS, Endpoint, EndpointPolicy
from ciliate.model.kinds import CILIUM_NETWORK_POLICY
from ciliate.model.policy import POLICY_MAP, POLICY_REVISIONS
from ciliate.tables.table import TableWriter
from ciliate_policy.agent import PolicyAgent

LIMIT = 10.0


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """A bpffs of the test's own."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "bpf", "policytest", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class Node:
    """An agent with the policy plugin alone; the test writes the table of endpoints in cni's place."""

    def __init__(self, host: Host, endpoints: TableWriter[Endpoint]) -> None:
        self.host = host
        self.endpoints = endpoints

    async def add(self, number: int, app: str, namespace: str = "default", **more: Any) -> EndpointPolicy:
        """A pod, and what is realised for it."""
        labels = (
            f"k8s:app={app}",
            "k8s:io.cilium.k8s.policy.cluster=default",
            f"k8s:io.kubernetes.pod.namespace={namespace}",
        )
        row = Endpoint(
            id=number, generation=1, container_id=f"c{number}", interface="eth0", netns="", namespace=namespace,
            pod=f"{app}-{number}", ipv4=f"10.0.{number >> 8}.{number & 255}", ipv6=f"fd00::{number:x}",
            labels=tuple(more.pop("labels", labels)), **more,
        )  # fmt: skip
        self.endpoints.put(row)
        return await self.realised(number)

    async def realised(
        self, number: int, predicate: Callable[[EndpointPolicy], bool] = lambda _: True
    ) -> EndpointPolicy:
        """The row of an endpoint once it is as wanted."""
        reader = self.host.tables.reader(ENDPOINT_POLICIES)
        row = await reader.until(number, lambda row: row is not None and predicate(row), LIMIT)
        assert row is not None
        return row

    async def apply(self, obj: dict[str, Any]) -> None:
        """Store a policy and wait until it is enforced."""
        stored = await self.host.store.create(obj)
        await self.enforced(stored)

    async def replace(self, obj: dict[str, Any]) -> None:
        """Replace a policy and wait until it is enforced."""
        stored = await self.host.store.update(obj)
        await self.enforced(stored)

    async def enforced(self, stored: dict[str, Any]) -> None:
        """Wait until a policy's generation is realised."""
        meta = stored["metadata"]
        key = (stored["kind"], meta.get("namespace", ""), meta["name"])
        reader = self.host.tables.reader(POLICY_REVISIONS)
        await reader.until(key, lambda row: row is not None and row.generation >= meta["generation"], LIMIT)

    def stamp(self, number: int) -> int:
        """The counter of an endpoint."""
        found: Any = self.host.maps.open(ENDPOINT_STAMPS_MAP).lookup(number)
        return int(found)

    def entries(self, policy: int) -> dict[tuple[int, int, int, int], tuple[bool, int]]:
        """(identity, protocol, port, bits) to (deny, rule set) of a policy id."""
        keys, values = self.host.maps.open(POLICY_MAP).items()
        return {
            (int(k["identity"]), int(k["protocol"]), int(k["port"]), int(k["prefixlen"]) - 72): (
                bool(v["flags"] & 1),
                int(v["rule_set"]),
            )
            for k, v in zip(keys, values, strict=True)
            if k["policy"] == policy
        }


@asynccontextmanager
async def running(tmp_path: Path, bpffs: Path, store: Path | None = None, **policy: Any) -> AsyncIterator[Node]:
    """A node's agent; its state is kept between two calls."""
    settings = Settings()
    tree = {
        "plugins": ["policy"],
        "node": {"name": "n1", "run_dir": f"{tmp_path}/run", "state_dir": f"{tmp_path}/state", "bpffs": str(bpffs)},
        "store": {"driver": "local", "path": f"{store or tmp_path}/store.sqlite"},
        "policy": policy,
    }
    settings.set("", tree, "test")
    host = Host.load(settings, "agent", "agent")
    await host.start()
    try:
        assert not host.loaded.refused
        endpoints = host.tables.writer(ENDPOINTS, "test")
        endpoints.complete()
        yield Node(host, endpoints)
    finally:
        await host.stop()
        host.maps.close()


def web_policy(name: str = "web", port: str = "80", **spec: Any) -> dict[str, Any]:
    """Web pods may be reached by client pods on one port."""
    rule = {
        "endpointSelector": {"matchLabels": {"app": "web"}},
        "ingress": [
            {
                "fromEndpoints": [{"matchLabels": {"app": "client"}}],
                "toPorts": [{"ports": [{"port": port, "protocol": "TCP"}]}],
            }
        ],
    }
    return {
        "apiVersion": "cilium.io/v2",
        "kind": CILIUM_NETWORK_POLICY.kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": rule | spec,
    }


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a limit."""
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0.005)


def agent_of(node: Node) -> PolicyAgent:
    """The plugin's own agent, to reach what has no other door."""
    plugin: Any = node.host.loaded.plugins["policy"]
    agent = plugin._agent
    assert isinstance(agent, PolicyAgent)
    return agent
