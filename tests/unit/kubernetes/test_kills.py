"""The whole operator killed at each of its writes, with work of every kind to do: the next finishes all of it."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import msgspec
import pytest
from ciliate import host as host_module
from ciliate.config import CoreConfig, Settings
from ciliate.host import Host
from ciliate.model.kinds import (
    CILIUM_ENDPOINT,
    CILIUM_IDENTITY,
    CILIUM_NETWORK_POLICY,
    CILIUM_NODE,
    NODE,
)
from ciliate.model.policy_report import PolicyDigest, report_of
from ciliate.store import Kind, NotFoundError, Object, Store
from ciliate_ipam.ledger import CONFIG_MAP, pod_cidrs
from ciliate_kubernetes.nodes.readiness import READY
from ciliate_policy.allocator import HEARTBEAT, identity_object
from ciliate_policy.operator import statuses

from tests.unit.killing import MortalStore

LIMIT = 10.0
PLUGINS = ["cni", "ipam", "policy", "kubernetes"]
TAINT = "node.cilium.io/agent-not-ready"
NODES = ("n1", "n2", "n3")


def settings(folder: Path) -> Settings:
    """An operator that does everything at once."""
    tree = {
        "plugins": PLUGINS,
        "node": {"name": "o", "run_dir": str(folder), "state_dir": str(folder), "bpffs": str(folder)},
        "store": {"driver": "local", "path": str(folder / "store.db")},
        "events": {"drain": "none"},
        "ipam": {"cluster_pool_ipv4_cidr": "10.77.0.0/16", "nodes_gc_interval": 0.03},
        "policy": {"identity_gc_interval": 0.03, "identity_heartbeat_timeout": 0.05},
        "cni": {"endpoint_gc_interval": 0.03},
    }
    found = Settings()
    found.set("", tree, "test")
    return found


def policy(name: str, port: str) -> Object:
    element = {"fromEndpoints": [{}], "toPorts": [{"ports": [{"port": port}]}]}
    spec = {"endpointSelector": {}, "ingress": [element]}
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec}


def owned(kind: str, name: str, uid: str) -> list[Object]:
    return [{"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}]


async def prepare(store: Store) -> None:
    """A cluster with work of every kind."""
    new = {"apiVersion": "cilium.io/v2", "kind": "CiliumNode"}
    for name in NODES:
        spec: Object = {"taints": [{"key": TAINT, "effect": "NoSchedule"}]}
        await store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec})
        metadata = {"name": name, "annotations": {READY: "b"}, "ownerReferences": owned("Node", name, "u")}
        await store.create({**new, "metadata": metadata, "spec": {"bootid": "b"}})
    await store.create({**new, "metadata": {"name": "gone", "ownerReferences": owned("Node", "gone", "u")}})
    digest = PolicyDigest()
    for name, port in (("web", "80"), ("bad", "70000")):
        stored = await store.create(policy(name, port))
        digest.put(name, stored["metadata"]["uid"], 1)
    for name in NODES:
        await store.create(report_of(name, "kube-system", {"CiliumNetworkPolicy": str(digest)}))
    unused = identity_object(301, ("k8s:app=gone",))
    await store.create(unused)
    used = identity_object(300, ("k8s:app=web",))
    used["metadata"]["annotations"] = {HEARTBEAT: "2020-01-01T00:00:00Z"}
    await store.create(used)
    pod = await store.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"}})
    for name, uid in (("web", pod["metadata"]["uid"]), ("gone", "x")):
        metadata = {"name": name, "namespace": "default", "ownerReferences": owned("Pod", name, uid)}
        status = {"identity": {"id": 300}}
        await store.create(
            {"apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint", "metadata": metadata, "status": status}
        )


async def sound(store: Store) -> None:
    """What must hold at every moment: no two ranges overlap, and the ledger knows all that nodes were told."""
    told = {n["metadata"]["name"]: pod_cidrs(n) for n in (await store.list(CILIUM_NODE)).items}
    everything = [ipaddress.ip_network(cidr) for cidrs in told.values() for cidr in cidrs]
    for one, other in combinations(everything, 2):
        assert one.version != other.version or not one.overlaps(other)
    ledgers = (await store.list(CONFIG_MAP)).items
    ledger = msgspec.json.decode(ledgers[0]["data"]["ranges"]) if ledgers else {}
    assert all(ledger.get(cidr) == name for name, cidrs in told.items() for cidr in cidrs)


async def lacking(store: Store) -> list[str]:
    """What of the work is not done."""
    nodes = {n["metadata"]["name"]: n for n in (await store.list(CILIUM_NODE)).items}
    found = [f"ranges of {name}" for name in NODES if len(pod_cidrs(nodes.get(name, {}))) != 2]
    found += ["CiliumNode gone"] if "gone" in nodes else []
    for node in (await store.list(NODE)).items:
        conditions = {one["type"]: one["status"] for one in (node.get("status") or {}).get("conditions") or ()}
        if node["spec"]["taints"] or conditions != {"NetworkUnavailable": "False"}:
            found.append(f"admission of {node['metadata']['name']}")
    for name, wanted in (
        ("web", "generation 1 is enforced on 3 of 3 nodes"),
        ("bad", "generation 1 is not enforced: "),
    ):
        obj = await store.get(CILIUM_NETWORK_POLICY, name, "default")
        said = {one["type"]: one["message"] for one in (obj.get("status") or {}).get("conditions") or ()}
        found += [] if said.get("Enforced", "").startswith(wanted) else [f"status of {name}: {said}"]
    identities = {one["metadata"]["name"]: one["metadata"] for one in (await store.list(CILIUM_IDENTITY)).items}
    found += ["identity 301"] if "301" in identities else []
    assert "300" in identities, "an identity in use was deleted"
    found += ["heartbeat of 300"] if HEARTBEAT in (identities["300"].get("annotations") or {}) else []
    try:
        await store.get(CILIUM_ENDPOINT, "gone", "default")
        found.append("CiliumEndpoint gone")
    except NotFoundError:
        await store.get(CILIUM_ENDPOINT, "web", "default")
    return found


async def finish(store: Store) -> None:
    """Wait until all is done."""
    left: list[str] = []
    try:
        async with asyncio.timeout(LIMIT):
            while left := await lacking(store):
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(left) from None


async def test_an_operator_killed_at_any_write_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statuses, "SETTLE", 0.02)
    monkeypatch.setattr(statuses, "BETWEEN", 0.02)
    store: MortalStore

    def opened(config: CoreConfig, kinds: Iterable[Kind] = ()) -> MortalStore:
        return store

    async def no_close() -> None:
        """The test closes it."""

    monkeypatch.setattr(host_module, "open_store", opened)
    for writes in range(200):
        folder = tmp_path / str(writes)
        folder.mkdir()
        store = MortalStore({"path": str(folder / "store.db")}, [CONFIG_MAP])
        monkeypatch.setattr(store, "close", no_close)
        await prepare(store)
        store.doom(writes, heard=writes % 2 == 0)
        victim = Host.load(settings(folder), "operator", "operator")
        await victim.start()
        async with asyncio.timeout(LIMIT):
            while store.left >= 0 and (unfinished := await lacking(store)):
                await asyncio.sleep(0.005)
        await victim.stop()
        finished = store.left >= 0
        assert not finished or not unfinished
        await sound(store)
        store.doom(1_000_000, heard=True)
        successor = Host.load(settings(folder), "operator", "operator")
        await successor.start()
        await finish(store)
        await successor.stop()
        await sound(store)
        await MortalStore.close(store)
        if finished:
            assert writes > 20
            return
    raise AssertionError("never finished")
