"""The operator's half: CiliumEndpoints whose pod is gone, has ended, or is another by now."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ciliate.config import Settings
from ciliate.host import Host
from ciliate.model.kinds import CILIUM_ENDPOINT
from ciliate.store import Object

KIND = {"apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint"}


def owned(uid: str) -> Any:
    return [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": uid}]


async def test_endpoints_that_nobody_keeps_are_deleted_and_no_others(tmp_path: Path) -> None:
    tree = {
        "plugins": ["cni", "ipam"],
        "node": {"name": "o", "run_dir": str(tmp_path), "state_dir": str(tmp_path), "bpffs": str(tmp_path)},
        "store": {"driver": "local", "path": str(tmp_path / "store.db")},
        "events": {"drain": "none"},
        "cni": {"endpoint_gc_interval": 0.05},
    }
    settings = Settings()
    settings.set("", tree, "test")
    host = Host.load(settings, "operator", "operator")
    await host.start()
    try:
        assert not host.loaded.refused and not list(host.maps.specs()), "an operator makes no maps"
        uids = {}
        for name, phase in {"runs": "Running", "moved": "Running", "ended": "Succeeded", "odd": "Running"}.items():
            pod: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}}
            stored = await host.store.create(pod)
            await host.store.update_status({**stored, "status": {"phase": phase}})
            uids[name] = stored["metadata"]["uid"]
        owners = {"runs": owned(uids["runs"]), "moved": owned("other"), "ended": owned(uids["ended"]), "odd": "x"}
        for name, owner in {**owners, "gone": owned("u")}.items():
            metadata = {"name": name, "namespace": "default", "ownerReferences": owner}
            await host.store.create({**KIND, "metadata": metadata})
        async with asyncio.timeout(10):
            while {e["metadata"]["name"] for e in (await host.store.list(CILIUM_ENDPOINT)).items} != {"runs", "odd"}:
                await asyncio.sleep(0.01)
    finally:
        await host.stop()
