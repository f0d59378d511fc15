"""Nodes whose network works: what the agent says, and what the operator makes of it, on a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from ciliate.config import Settings
from ciliate.host import Host
from ciliate.model.kinds import CILIUM_NODE, NODE
from ciliate.store import Object, Store
from ciliate_kubernetes.nodes.admission import with_condition, without_taint
from ciliate_kubernetes.nodes.readiness import READY, boot_id, is_ready
from ciliate_store_local.driver import LocalStore

KEY = "node.cilium.io/agent-not-ready"
TAINTS = [{"key": key, "effect": "NoSchedule"} for key in (KEY, "other")] + [{"key": KEY, "effect": "NoExecute"}]


@asynccontextmanager
async def process(tmp_path: Path, role: str, **kubernetes: Any) -> AsyncIterator[Host]:
    """An agent or an operator with the plugin kubernetes alone."""
    folder = tmp_path / role
    tree = {
        "plugins": ["kubernetes"],
        "node": {"name": "n1", "run_dir": str(folder), "state_dir": str(folder), "bpffs": str(folder)},
        "store": {"driver": "local", "path": str(tmp_path / "store.db")},
        "events": {"drain": "none"},
        "kubernetes": kubernetes,
    }
    settings = Settings()
    settings.set("", tree, "test")
    host = Host.load(settings, role, role)
    await host.start()
    try:
        assert not host.loaded.refused, host.loaded.refused
        yield host
    finally:
        await host.stop()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """The cluster's store."""
    found = LocalStore({"path": str(tmp_path / "store.db")}, ())
    yield found
    await found.close()


async def node(store: Store, name: str, taints: Any = TAINTS, conditions: Any = ()) -> None:
    """A Node as a kubelet registers it."""
    obj: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"taints": taints}}
    stored = await store.create(obj)
    await store.update_status({**stored, "status": {"conditions": list(conditions)}})


async def cilium_node(store: Store, name: str, boot: str, said: str = "") -> None:
    """A CiliumNode that says it is ready since a start."""
    metadata = {"name": name, "annotations": {READY: said} if said else {}}
    spec = {"bootid": boot}
    await store.apply({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": metadata, "spec": spec}, "test")


async def until(store: Store, name: str, wanted: Callable[[Object], Any]) -> Object:
    found: Object = {}
    try:
        async with asyncio.timeout(10):
            while not wanted(found := await store.get(NODE, name)):
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{name}: {found}") from None
    return found


def keys(found: Object) -> list[str]:
    return [taint["key"] for taint in found["spec"]["taints"]]


async def test_a_node_takes_pods_once_its_agent_has_said_that_its_network_works(store: Store, tmp_path: Path) -> None:
    ready = {"type": "Ready", "status": "True"}
    unavailable = {"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"}
    for name in ("n1", "n2", "n3"):
        await node(store, name, conditions=[ready, unavailable])
    await cilium_node(store, "n1", "b1", said="b1")
    await cilium_node(store, "n2", "b2")
    await cilium_node(store, "n3", "b3", said="an earlier start")
    async with process(tmp_path, "operator"):
        found = await until(store, "n1", lambda found: keys(found) == ["other"])
        conditions = {one["type"]: one for one in found["status"]["conditions"]}
        assert conditions["Ready"] == ready
        assert (conditions["NetworkUnavailable"]["status"], conditions["NetworkUnavailable"]["reason"]) == (
            "False",
            "CiliumIsUp",
        )
        assert conditions["NetworkUnavailable"]["lastTransitionTime"]
        await cilium_node(store, "n2", "b2", said="b2")
        await until(store, "n2", lambda found: keys(found) == ["other"])
        assert KEY in keys(await store.get(NODE, "n3"))
        await store.patch(NODE, {"metadata": {"name": "n1"}, "spec": {"taints": TAINTS}})
        await until(store, "n1", lambda found: keys(found) == ["other"])


async def test_what_the_settings_say_is_left_alone(store: Store, tmp_path: Path) -> None:
    await node(store, "n1", [{"key": KEY}, {"key": "mine"}])
    await cilium_node(store, "n1", "b1", said="b1")
    async with process(tmp_path, "operator", agent_not_ready_taint_key="mine", set_cilium_is_up_condition=False):
        found = await until(store, "n1", lambda found: keys(found) == [KEY])
        assert found["status"]["conditions"] == []


@pytest.mark.parametrize("nonsense", ["x", [1, "y", {"effect": "NoExecute"}], {"a": 1}])
async def test_nonsense_in_one_node_keeps_no_other_waiting(store: Store, tmp_path: Path, nonsense: Any) -> None:
    await node(store, "n1", nonsense)
    await store.patch(NODE, {"metadata": {"name": "n1"}, "status": {"conditions": nonsense}}, status=True)
    await cilium_node(store, "n1", "b1", said="b1")
    await store.patch(CILIUM_NODE, {"metadata": {"name": "n1"}, "spec": "nonsense"})
    await cilium_node(store, "n1", "b1", said="b1")
    await node(store, "n2")
    await cilium_node(store, "n2", "b2", said="b2")
    async with process(tmp_path, "operator") as operator:
        await until(store, "n2", lambda found: keys(found) == ["other"])
        assert not operator.ready()


async def test_an_agent_says_it_when_all_of_it_is_ready_and_again_when_somebody_takes_it_away(
    store: Store, tmp_path: Path
) -> None:
    await cilium_node(store, "n1", boot_id())

    async def said(wanted: str) -> None:
        async with asyncio.timeout(10):
            while True:
                found = (await store.get(CILIUM_NODE, "n1"))["metadata"].get("annotations") or {}
                if found.get(READY, "") == wanted:
                    return
                await asyncio.sleep(0.01)

    async with process(tmp_path, "agent", api_server=False) as agent:
        agent.healths["kubernetes"].not_ready("not yet", "test")
        async with asyncio.timeout(10):
            while set(str(agent.ready())) and "test: not yet" not in str(agent.ready()):
                await asyncio.sleep(0.01)
        await said("")
        agent.healths["kubernetes"].ready("test")
        await said(boot_id())
        assert is_ready(await store.get(CILIUM_NODE, "n1"))
        await store.patch(CILIUM_NODE, {"metadata": {"name": "n1", "annotations": {READY: None}}})
        await said(boot_id())
        await store.delete(CILIUM_NODE, "n1")
        await cilium_node(store, "n1", boot_id())
        await said(boot_id())
        agent.healths["kubernetes"].not_ready("lost its head", "test")
    assert is_ready(await store.get(CILIUM_NODE, "n1")), "the data path goes on without the agent"


def test_what_is_so_already_is_not_written() -> None:
    assert without_taint({"spec": {"taints": [{"key": "a"}]}}, KEY) is None
    assert without_taint({"spec": {"taints": [{"key": KEY}]}}, KEY) == []
    up = with_condition({"status": {}})
    assert up is not None and with_condition({"status": {"conditions": up}}) is None
