"""An operator with the policy plugin alone, in this process, on a real store; the test plays the nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ciliate.config import Settings
from ciliate.host import Host
from ciliate.leadership import LEASE
from ciliate.model.kinds import CILIUM_NETWORK_POLICY, CILIUM_NODE
from ciliate.model.policy_report import PREFIX, PolicyDigest, report_of
from ciliate.store import NotFoundError, Object, Store

LIMIT = 10.0


@asynccontextmanager
async def operator(tmp_path: Path, name: str = "operator", **sections: Any) -> AsyncIterator[Host]:
    """One operator, until it is stopped."""
    folder = tmp_path / name
    tree = {
        "plugins": ["policy"],
        "node": {"name": name, "run_dir": str(folder), "state_dir": str(folder), "bpffs": str(folder)},
        "store": {"driver": "local", "path": str(tmp_path / "store.db")},
        "events": {"drain": "none"},
        **sections,
    }
    settings = Settings()
    settings.set("", tree, "test")
    host = Host.load(settings, "operator", "operator")
    await host.start()
    try:
        assert not host.loaded.refused, host.loaded.refused
        yield host
    finally:
        await host.stop()


def policy(name: str, port: str = "80", **spec: Any) -> Object:
    """A CiliumNetworkPolicy."""
    element = {"fromEndpoints": [{}], "toPorts": [{"ports": [{"port": port}]}]}
    body = {"endpointSelector": {"matchLabels": {"app": name}}, "ingress": [element], **spec}
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": body}


class Nodes:
    """Nodes that say what they have realised."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._digests: dict[str, PolicyDigest] = {}

    async def add(self, *names: str) -> None:
        """CiliumNodes."""
        for name in names:
            self._digests[name] = PolicyDigest()
            metadata = {"name": name}
            await self.store.create({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": metadata})

    async def realise(self, obj: Object, *names: str) -> None:
        """These nodes have an object as it is now."""
        meta = obj["metadata"]
        for name in names:
            self._digests[name].put(meta["name"], meta["uid"], meta["generation"])
            await self.say(name, {CILIUM_NETWORK_POLICY.kind: str(self._digests[name])})

    async def say(self, name: str, digests: Mapping[str, str]) -> None:
        """Write a node's report."""
        wanted = report_of(name, "kube-system", digests)
        try:
            current = await self.store.get(LEASE, PREFIX + name, "kube-system")
        except NotFoundError:
            await self.store.create(wanted)
            return
        metadata = {**current["metadata"], "annotations": wanted["metadata"]["annotations"]}
        await self.store.update({**current, "metadata": metadata, "spec": wanted["spec"]})

    async def remove(self, name: str) -> None:
        """A node goes."""
        await self.store.delete(CILIUM_NODE, name)


async def said(store: Store, name: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, dict[str, Any]]:
    """A policy's conditions by type, once they are as wanted."""
    found: dict[str, dict[str, Any]] = {}
    try:
        async with asyncio.timeout(LIMIT):
            while True:
                obj = await store.get(CILIUM_NETWORK_POLICY, name, "default")
                listed = (obj.get("status") or {}).get("conditions") or ()
                found = {one["type"]: one for one in listed if isinstance(one, dict) and "type" in one}
                if found and wanted(found):
                    return found
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{name}: {found}") from None


def message(text: str) -> Callable[[dict[str, Any]], bool]:
    """Whether the condition Enforced says this."""
    return lambda found: found.get("Enforced", {}).get("message") == text
