"""How definitions get into a store and are kept there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ciliate.store import Object, Store
from ciliate_kubernetes.crds.definition import REVISION_LABEL, VERSION_LABEL, definition_object
from ciliate_kubernetes.crds.kinds import DEFINITIONS
from ciliate_kubernetes.crds.registration import merged, register_all
from ciliate_kubernetes.install.kinds import CUSTOM_RESOURCE_DEFINITION

from tests.unit.killing import KilledError, MortalStore

NODES = "ciliumnodes.cilium.io"
OURS = next(definition_object(d) for d in DEFINITIONS if d.name == NODES)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[MortalStore]:
    """A store that takes definitions for objects like others."""
    found = MortalStore({"path": str(tmp_path / "store.db")}, [CUSTOM_RESOURCE_DEFINITION])
    yield found
    await found.close()


async def definitions(store: Store) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in (await store.list(CUSTOM_RESOURCE_DEFINITION)).items}


def labelled(**labels: str) -> Object:
    """The definition of CiliumNode as somebody else has registered it."""
    spec = {**OURS["spec"], "versions": [{"name": "v2", "served": True, "storage": True, "schema": {"theirs": {}}}]}
    return {**OURS, "metadata": {"name": NODES, "labels": labels}, "spec": spec}


async def test_all_are_registered_and_then_nothing_is_written(store: MortalStore) -> None:
    done: list[str] = []
    assert await register_all(store, lambda name, what: done.append(f"{name} {what}")) == []
    assert done == [f"{definition.name} registered" for definition in DEFINITIONS]
    before = await definitions(store)
    assert len(before) == len(DEFINITIONS) == 25
    assert before[NODES]["metadata"]["labels"] == {VERSION_LABEL: "1.34.2", REVISION_LABEL: "1"}
    store.doom(0, True)
    assert await register_all(store) == []
    assert await definitions(store) == before


@pytest.mark.parametrize(
    ("labels", "replaced"),
    [
        ({}, True),
        ({VERSION_LABEL: "1.26.10"}, True),
        ({VERSION_LABEL: "nonsense"}, True),
        ({VERSION_LABEL: "1.34.2"}, True),  # Cilium's own, which lacks what we add
        ({VERSION_LABEL: "1.34.2", REVISION_LABEL: "0"}, True),
        ({VERSION_LABEL: "1.34.2", REVISION_LABEL: "2"}, False),
        ({VERSION_LABEL: "1.35"}, False),
        ({VERSION_LABEL: "v2.0.0"}, False),
    ],
)
async def test_what_is_older_is_brought_up_to_date_and_what_is_newer_left_alone(
    store: MortalStore, labels: dict[str, str], replaced: bool
) -> None:
    theirs = await store.create(labelled(team="a", **labels))
    done: dict[str, str] = {}
    assert await register_all(store, done.__setitem__) == []
    found = (await definitions(store))[NODES]
    assert (found["spec"] == OURS["spec"]) == replaced
    assert (found == theirs) != replaced
    assert found["metadata"]["labels"]["team"] == "a"
    assert done.get(NODES, "").startswith("brought up to date from ") == replaced


def test_a_version_of_which_objects_are_stored_is_kept_unserved() -> None:
    theirs: dict[str, Any] = labelled()
    old = {"name": "v1", "served": True, "storage": False, "schema": {}}
    unused = {"name": "v0", "served": True, "storage": False, "schema": {}}
    theirs["spec"]["versions"] += [old, unused]
    theirs["status"] = {"storedVersions": ["v1", "v2"]}
    versions = {one["name"]: one for one in merged(theirs, OURS)["spec"]["versions"]}
    assert set(versions) == {"v2", "v1"}
    assert (versions["v1"]["served"], versions["v1"]["storage"]) == (False, False)


@pytest.mark.parametrize("heard", [True, False])
async def test_killed_at_any_write_the_next_registers_the_rest(store: MortalStore, heard: bool) -> None:
    for writes in (0, 1, 7, len(DEFINITIONS) - 1):
        for name in await definitions(store):
            await store.delete(CUSTOM_RESOURCE_DEFINITION, name)
        await store.create(labelled())
        store.doom(writes, heard)
        with pytest.raises(KilledError):
            await register_all(store)
        store.doom(1000, True)
        assert await register_all(store) == []
        assert {name: one["spec"] for name, one in (await definitions(store)).items()} == {
            definition.name: definition_object(definition)["spec"] for definition in DEFINITIONS
        }


async def test_two_operators_at_once_register_each_kind_once(store: MortalStore) -> None:
    assert await asyncio.gather(*(register_all(store) for _ in range(3))) == [[], [], []]
    assert len(await definitions(store)) == 25
