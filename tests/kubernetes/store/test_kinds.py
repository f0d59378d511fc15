"""Kinds that the API server does not have yet, or has in other versions, and objects that somebody edited by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from ciliate.model.kinds import CILIUM_ENDPOINT
from ciliate.store import Kind, MissingKindError, Object
from ciliate_kubernetes.crds.definition import definition_object
from ciliate_kubernetes.crds.kinds import DEFINITIONS
from ciliate_kubernetes.store.driver import KubernetesStore

from tests.contracts.store import WIDGET, widget
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.store.conftest import OpenStore
from tests.kubernetes.store.crds import crd, install, remove
from tests.kubernetes.store.follower import Follower
from tests.kubernetes.store.proxy import Proxy, read_kubeconfig

GIZMO = Kind("late.ciliate.io/v2", "Gizmo", "gizmos", True)


@pytest.fixture(autouse=True)
async def clean(store: KubernetesStore) -> AsyncIterator[None]:
    """Without gizmos, before and after."""
    yield
    await remove(store, crd(GIZMO))


async def test_a_kind_that_is_not_registered_yet_is_waited_for_and_that_is_said(
    store: KubernetesStore, open_store: OpenStore, space: str
) -> None:
    waiting = open_store(first_pause=0.02)
    with pytest.raises(MissingKindError, match=r"does not know gizmos\.late\.ciliate\.io yet\. `ciliate operator`"):
        await waiting.get(GIZMO, "one", space)
    async with Follower(waiting, space, GIZMO) as follower:
        await follower.until(lambda: waiting.problems())
        assert "does not know gizmos.late.ciliate.io yet" in waiting.problems()[0]
        await install(store, crd(GIZMO))
        await follower.until(lambda: follower.complete and waiting.problems() == ())


async def test_a_newer_version_beside_ours_changes_nothing(
    control_plane: ControlPlane, store: KubernetesStore, space: str
) -> None:
    await install(store, crd(GIZMO, ("v3",)))
    newer = KubernetesStore(
        {"kubeconfig": store._options.kubeconfig}, (replace(GIZMO, api_version="late.ciliate.io/v3"),)
    )
    ours = KubernetesStore({"kubeconfig": store._options.kubeconfig}, (GIZMO,))
    async with Follower(ours, space, GIZMO) as follower:
        gizmo = {**widget("one", space, size=1), "apiVersion": "late.ciliate.io/v3", "kind": "Gizmo"}
        await newer.create(gizmo)
        await follower.until(lambda: follower.known == {"one": {"size": 1}})
        assert (await ours.get(GIZMO, "one", space))["apiVersion"] == GIZMO.api_version
        await ours.patch(GIZMO, {"metadata": {"name": "one", "namespace": space}, "spec": {"size": 2}})
        await follower.until(lambda: follower.known == {"one": {"size": 2}})
    for one in (newer, ours):
        await one.close()


async def test_a_newer_version_in_the_place_of_ours_is_said_with_both(store: KubernetesStore, space: str) -> None:
    await install(store, crd(replace(GIZMO, api_version="late.ciliate.io/v3")))
    with pytest.raises(MissingKindError, match=r"late\.ciliate\.io in version v3, and Gizmo is wanted in v2: install"):
        await store.list(GIZMO, space)


async def test_a_kind_that_is_taken_away_is_waited_for_too(
    control_plane: ControlPlane, store: KubernetesStore, space: str
) -> None:
    options = {"kubeconfig": str(control_plane.kubeconfig), "first_pause": 0.02, "watch_seconds": 1}
    ours = KubernetesStore(options, (GIZMO,))
    await install(store, crd(GIZMO))
    async with Follower(ours, space, GIZMO) as follower:
        await ours.create({**widget("one", space), "apiVersion": GIZMO.api_version, "kind": "Gizmo"})
        await follower.until(lambda: "one" in follower.known)
        await remove(store, crd(GIZMO))
        await follower.until(lambda: follower.known == {} and ours.problems())
        await install(store, crd(GIZMO))
        await ours.create({**widget("two", space), "apiVersion": GIZMO.api_version, "kind": "Gizmo"})
        await follower.until(lambda: "two" in follower.known and ours.problems() == ())
    await ours.close()


async def test_nonsense_in_a_field_reaches_its_readers_as_it_is(store: KubernetesStore, space: str) -> None:
    partial = WIDGET.only("spec.parts[].name", "metadata.labels")
    async with Follower(store, space, partial) as follower:
        for number, spec in enumerate(({"parts": "none"}, {"parts": {"name": 7}}, "nothing", [1, 2], {"parts": [3]})):
            await store.create({**widget(f"w{number}", space), "spec": spec})
            async with asyncio.timeout(10):
                await follower.until(lambda name=f"w{number}", spec=spec: follower.known.get(name) == spec)  # type: ignore[misc]


@pytest.mark.parametrize("streaming", [False, True])
async def test_the_api_server_selects_a_nodes_endpoints_if_their_definition_lets_it(
    control_plane: ControlPlane, store: KubernetesStore, space: str, tmp_path: Path, streaming: bool
) -> None:
    proxy = Proxy(read_kubeconfig(control_plane.kubeconfig, tmp_path))
    await proxy.start()
    mine = {"status.networking.node": "10.0.0.1"}
    definition = definition_object(next(one for one in DEFINITIONS if one.kind == CILIUM_ENDPOINT.kind))
    for offered in (True, False):
        await install(store, definition if offered else crd(CILIUM_ENDPOINT))
        behind = KubernetesStore(
            {"kubeconfig": str(control_plane.kubeconfig), "server": proxy.url, "streaming_lists": streaming}, ()
        )
        for name, node in (("mine", "10.0.0.1"), ("other", "10.0.0.2")):
            await store.create(_endpoint(name, space, node))
        proxy.seen.clear()
        listed = await behind.list(CILIUM_ENDPOINT, space, mine)
        assert [obj["metadata"]["name"] for obj in listed.items] == ["mine"]
        selected = {"fieldSelector": "status.networking.node=10.0.0.1"}.items() <= proxy.seen[-1].query.items()
        assert selected is offered
        await store.create(_endpoint("late", space, "10.0.0.1"))
        async with asyncio.timeout(10), aclosing(behind.watch(CILIUM_ENDPOINT, listed.revision, space, mine)) as events:
            assert (await anext(events)).object["metadata"]["name"] == "late"
        await behind.close()
        await remove(store, definition)
    await proxy.stop()


def _endpoint(name: str, space: str, node: str) -> Object:
    status = {"networking": {"node": node, "addressing": []}}
    return {
        "apiVersion": CILIUM_ENDPOINT.api_version,
        "kind": CILIUM_ENDPOINT.kind,
        "metadata": {"name": name, "namespace": space},
        "status": status,
    }
