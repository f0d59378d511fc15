"""What the store does with single objects: names, revisions, generations, status, finalizers, conflicts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ciliate.model.kinds import CILIUM_IDENTITY, NAMESPACE, NODE, POD
from ciliate.store import AlreadyExistsError, ConflictError, InvalidError, NotFoundError, Object
from ciliate_store_local.driver import LocalStore

from tests.unit.store_local.conftest import OpenStore, pod


async def test_a_new_store_has_the_first_namespaces_with_their_names_as_labels(store: LocalStore) -> None:
    listed = await store.list(NAMESPACE)
    labels = {o["metadata"]["name"]: o["metadata"]["labels"] for o in listed.items}
    assert labels == {n: {"kubernetes.io/metadata.name": n} for n in ("default", "kube-system")}


async def test_a_created_object_gets_what_the_store_sets(store: LocalStore) -> None:
    given = pod("web", nodeName="a")
    made = await store.create(given)
    meta = made["metadata"]
    assert meta["uid"] and meta["creationTimestamp"].endswith("Z") and meta["generation"] == 1
    assert int(meta["resourceVersion"]) > 0
    assert given == pod("web", nodeName="a"), "the caller's object was changed"
    assert await store.get(POD, "web", "default") == made


async def test_a_second_object_of_one_name_is_refused(store: LocalStore) -> None:
    await store.create(pod("web"))
    with pytest.raises(AlreadyExistsError, match="pods default/web already exists"):
        await store.create(pod("web"))
    await store.create(pod("web", "other"))


async def test_names_are_generated_and_differ(store: LocalStore) -> None:
    given: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "job-", "namespace": "default"}}
    made = await asyncio.gather(*(store.create(given) for _ in range(20)))
    names = {o["metadata"]["name"] for o in made}
    assert len(names) == 20 and all(n.startswith("job-") and len(n) == 9 for n in names)


async def test_generation_grows_with_spec_and_with_nothing_else(store: LocalStore) -> None:
    made = await store.create(pod("web", nodeName="a"))
    made["metadata"]["labels"] = {"app": "web"}
    labelled = await store.update(made)
    assert labelled["metadata"]["generation"] == 1
    labelled["status"] = {"phase": "Running"}
    running = await store.update_status(labelled)
    assert running["metadata"]["generation"] == 1
    running["spec"]["nodeName"] = "b"
    assert (await store.update(running))["metadata"]["generation"] == 2


async def test_update_leaves_status_alone_and_update_status_all_else(store: LocalStore) -> None:
    made = await store.create({**pod("web", nodeName="a"), "status": {"phase": "Lie"}})
    assert "status" not in made
    made["status"] = {"phase": "Running"}
    made["spec"] = {"nodeName": "ignored"}
    running = await store.update_status(made)
    assert running["spec"] == {"nodeName": "a"} and running["status"] == {"phase": "Running"}
    running["status"] = {"phase": "Lie"}
    running["spec"] = {"nodeName": "b"}
    assert (await store.update(running))["status"] == {"phase": "Running"}


async def test_a_kind_without_status_refuses_update_status(store: LocalStore) -> None:
    identity = {"apiVersion": "cilium.io/v2", "kind": "CiliumIdentity", "metadata": {"name": "1234"}}
    made = await store.create({**identity, "security-labels": {"k8s:app": "web"}})
    with pytest.raises(InvalidError, match="no status"):
        await store.update_status(made)
    made["security-labels"] = {"k8s:app": "api"}
    assert (await store.update(made))["metadata"]["generation"] == 2
    assert (await store.get(CILIUM_IDENTITY, "1234"))["security-labels"] == {"k8s:app": "api"}


async def test_an_update_that_changes_nothing_makes_no_revision(store: LocalStore) -> None:
    made = await store.create(pod("web", nodeName="a"))
    assert await store.update(made) == made
    assert (await store.list(POD)).revision == made["metadata"]["resourceVersion"]


async def test_an_update_of_an_old_revision_is_a_conflict(store: LocalStore) -> None:
    old = await store.create(pod("web", nodeName="a"))
    new = await store.update({**old, "spec": {"nodeName": "b"}})
    with pytest.raises(ConflictError, match="read it again"):
        await store.update({**old, "spec": {"nodeName": "c"}})
    with pytest.raises(ConflictError):
        await store.update_status({**old, "status": {}})
    assert await store.get(POD, "web", "default") == new


async def test_an_update_without_revision_always_applies(store: LocalStore) -> None:
    await store.create(pod("web", nodeName="a"))
    assert (await store.update(pod("web", nodeName="b")))["spec"] == {"nodeName": "b"}


async def test_an_object_made_anew_is_not_the_one_that_was_meant(store: LocalStore) -> None:
    first = await store.create(pod("web"))
    await store.delete(POD, "web", "default", first["metadata"]["uid"])
    await store.create(pod("web"))
    with pytest.raises(ConflictError, match="made anew"):
        await store.delete(POD, "web", "default", first["metadata"]["uid"])


async def test_what_is_absent_is_not_found(store: LocalStore) -> None:
    with pytest.raises(NotFoundError, match="pods default/web not found"):
        await store.get(POD, "web", "default")
    with pytest.raises(NotFoundError):
        await store.update(pod("web"))
    with pytest.raises(NotFoundError):
        await store.delete(NODE, "web")


async def test_finalizers_hold_an_object_until_the_last_is_gone(store: LocalStore) -> None:
    given = pod("web")
    given["metadata"]["finalizers"] = ["a/x", "b/y"]
    await store.create(given)
    marked = await store.delete(POD, "web", "default")
    assert "deletionTimestamp" in marked["metadata"]
    assert await store.delete(POD, "web", "default") == marked, "a second delete changes nothing"
    marked["metadata"]["finalizers"] = ["b/y"]
    one_left = await store.update(marked)
    assert "deletionTimestamp" in one_left["metadata"]
    with pytest.raises(InvalidError, match="c/z"):
        await store.update({**one_left, "metadata": {**one_left["metadata"], "finalizers": ["b/y", "c/z"]}})
    one_left["metadata"]["finalizers"] = []
    await store.update(one_left)
    with pytest.raises(NotFoundError):
        await store.get(POD, "web", "default")


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


async def test_what_json_can_not_say_is_refused(store: LocalStore) -> None:
    with pytest.raises(InvalidError, match="JSON"):
        await store.create(pod("web", broken="\ud800"))
    with pytest.raises(InvalidError, match="JSON"):
        await store.create(pod("web", broken=object()))


async def test_an_object_over_the_limit_is_refused_with_both_sizes(store: LocalStore) -> None:
    await store.create(pod("fits", text="x" * 1_500_000))
    with pytest.raises(InvalidError, match=r"has 16\d+ bytes; the limit is 1572864"):
        await store.create(pod("large", text="x" * 1_600_000))


async def test_lists_take_namespaces_and_fields(store: LocalStore) -> None:
    for number in range(6):
        await store.create(pod(f"p{number}", "default" if number % 2 else "other", nodeName=f"n{number % 3}"))

    async def names(*arguments: Any) -> list[str]:
        return [o["metadata"]["name"] for o in (await store.list(POD, *arguments)).items]

    assert await names() == ["p1", "p3", "p5", "p0", "p2", "p4"]
    assert await names("other") == ["p0", "p2", "p4"]
    assert await names(None, {"spec.nodeName": "n1"}) == ["p1", "p4"]
    assert await names("other", {"spec.nodeName": "n1", "metadata.name": "p4"}) == ["p4"]
    assert await names(None, {"spec.absent": ""}) == await names()


async def test_options_are_checked_by_name(open_store: OpenStore) -> None:
    with pytest.raises(InvalidError, match=r"unknown field `histroy`.*Known options: path, history"):
        open_store(histroy=5)
    with pytest.raises(InvalidError, match="at least 1"):
        open_store(history=0)
