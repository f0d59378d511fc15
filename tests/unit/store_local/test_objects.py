"""What the local store says of malformed objects, and its own options; what every store does is in the contract."""

from __future__ import annotations

from typing import Any

import pytest
from ciliate.model.kinds import NAMESPACE, POD
from ciliate.recorder import EVENT
from ciliate.store import InvalidError
from ciliate_store_local.driver import LocalStore

from tests.unit.store_local.conftest import OpenStore, pod


async def test_a_new_store_has_the_first_namespaces_with_their_names_as_labels(store: LocalStore) -> None:
    listed = await store.list(NAMESPACE)
    labels = {o["metadata"]["name"]: o["metadata"]["labels"] for o in listed.items}
    assert labels == {n: {"kubernetes.io/metadata.name": n} for n in ("default", "kube-system")}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": ""}, "metadata.name is missing"),
        ({"name": "Web"}, "lower-case"),
        ({"name": "a" * 254}, "253"),
        ({"name": "-a"}, "begin and end"),
        ({"name": "ünïcode"}, "lower-case"),
        ({"name": 7}, "must be a string"),
        ({"namespace": ""}, "belong to a namespace"),
        ({"namespace": "a.b"}, "DNS label"),
        ({"labels": {"app": 1}}, "quote it"),
        ({"labels": {"app": "two words"}}, "63 letters"),
        ({"labels": {"a/b/c": "x"}}, "label key"),
        ({"labels": ["app"]}, "map of strings"),
        ({"finalizers": "x"}, "list of strings"),
    ],
)
async def test_malformed_metadata_is_refused_by_path(store: LocalStore, change: dict[str, Any], complaint: str) -> None:
    given = pod("web")
    given["metadata"].update(change)
    with pytest.raises(InvalidError, match=complaint):
        await store.create(given)


async def test_unknown_kinds_and_wrong_scopes_are_refused(store: LocalStore) -> None:
    with pytest.raises(InvalidError, match=r"unknown kind v1 Widget; known are: .*v1 Pod"):
        await store.create({"apiVersion": "v1", "kind": "Widget", "metadata": {"name": "x"}})
    with pytest.raises(InvalidError, match="have no namespace"):
        await store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "namespace": "default"}})
    with pytest.raises(InvalidError, match="metadata is missing"):
        await store.create({"apiVersion": "v1", "kind": "Node"})


async def test_unicode_and_odd_values_survive(store: LocalStore) -> None:
    spec: dict[str, Any] = {
        "text": "grüße 🐾 \u0000 \u2028",
        "big": 2**53 + 1,
        "none": None,
        "float": 0.1,
        "deep": [[{}]],
        "": "empty",
    }
    await store.create(pod("web", **spec))
    assert (await store.get(POD, "web", "default"))["spec"] == spec


async def test_an_object_over_the_limit_is_refused_with_both_sizes(store: LocalStore) -> None:
    await store.create(pod("fits", text="x" * 1_500_000))
    with pytest.raises(InvalidError, match=r"has 16\d+ bytes; the limit is 1572864"):
        await store.create(pod("large", text="x" * 1_600_000))


async def test_options_are_checked_by_name(open_store: OpenStore) -> None:
    with pytest.raises(InvalidError, match=r"unknown field `histroy`.*Known options: path, history"):
        open_store(histroy=5)
    with pytest.raises(InvalidError, match="at least 1"):
        open_store(history=0)


async def test_events_beyond_a_number_go_the_oldest_first(open_store: OpenStore) -> None:
    store = open_store(events=20)
    for number in range(50):
        metadata = {"name": f"e{number}", "namespace": "default"}
        await store.create({"apiVersion": "v1", "kind": "Event", "metadata": metadata})
        if number == 5:
            await store.create(pod("web"))
    left = [int(event["metadata"]["name"][1:]) for event in (await store.list(EVENT)).items]
    assert 18 <= len(left) <= 20 and set(left) == set(range(50 - len(left), 50))
    assert len((await store.list(POD)).items) == 1
