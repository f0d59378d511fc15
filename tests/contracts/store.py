"""What `ciliate.store.Store` promises, whichever driver keeps the objects.

A driver's tests derive a class from `StoreContract` and have two fixtures: `store`, which knows KINDS, and `space`, a
namespace of the test's own (that of its name with `-2` exists too). What has no namespace is named `<space>-...`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from ciliate.store import (
    AlreadyExistsError,
    ConflictError,
    InvalidError,
    Kind,
    NotFoundError,
    Object,
    ObjectChanges,
    Store,
    StoreError,
    WatchEvent,
    WatchType,
    follow,
)

WIDGET = Kind("tests.ciliate.io/v1", "Widget", "widgets", True)
GADGET = Kind("tests.ciliate.io/v1", "Gadget", "gadgets", False, has_status=False)
KINDS = (WIDGET, GADGET)


def widget(name: str, space: str, **spec: Any) -> Object:
    """A widget."""
    return {
        "apiVersion": WIDGET.api_version,
        "kind": WIDGET.kind,
        "metadata": {"name": name, "namespace": space},
        "spec": spec,
    }


def gadget(name: str, **values: Any) -> Object:
    """A gadget: it has no namespace, no status, and values at its top."""
    return {"apiVersion": GADGET.api_version, "kind": GADGET.kind, "metadata": {"name": name}, **values}


def labelled(obj: Object, **labels: str) -> Object:
    """An object with labels."""
    return {**obj, "metadata": {**obj["metadata"], "labels": labels}}


def named(obj: Object, **metadata: Any) -> Object:
    """A patch of an object, with some of its metadata."""
    meta = {key: obj["metadata"][key] for key in ("name", "namespace") if key in obj["metadata"]}
    return {"metadata": {**meta, **metadata}}


def brief(events: list[WatchEvent]) -> list[tuple[str, str]]:
    return [(event.type.value, event.object["metadata"]["name"]) for event in events]


async def collect(store: Store, count: int, since: str, kind: Kind = WIDGET, **selection: Any) -> list[WatchEvent]:
    """The next `count` events, without bookmarks."""
    events: list[WatchEvent] = []
    async with asyncio.timeout(20), aclosing(store.watch(kind, since, **selection)) as watch:  # type: ignore[type-var]
        async for event in watch:
            if event.type is not WatchType.BOOKMARK:
                events.append(event)
            if len(events) == count:
                break
    return events


async def upserts(changes: AsyncIterator[ObjectChanges]) -> list[Object]:
    """The objects of the next batch that has some."""
    async with asyncio.timeout(20):
        while not (batch := await anext(changes)).upserts:
            pass
    return batch.upserts


class StoreContract:
    """Every driver passes these."""

    # One object

    async def test_a_created_object_gets_what_the_store_sets(self, store: Store, space: str) -> None:
        given = widget("web", space, size=1)
        made = await store.create(given)
        meta = made["metadata"]
        assert meta["uid"] and meta["creationTimestamp"].endswith("Z") and meta["generation"] == 1
        assert meta["resourceVersion"] and "managedFields" not in meta
        assert given == widget("web", space, size=1), "the caller's object was changed"
        assert await store.get(WIDGET, "web", space) == made

    async def test_a_second_object_of_one_name_is_refused(self, store: Store, space: str) -> None:
        await store.create(widget("web", space))
        with pytest.raises(AlreadyExistsError, match=rf"widgets.*{space}/web already exists|\"web\" already exists"):
            await store.create(widget("web", space))
        await store.create(widget("web", f"{space}-2"))

    async def test_names_are_generated_and_differ(self, store: Store, space: str) -> None:
        given = {**widget("", space), "metadata": {"generateName": "job-", "namespace": space}}
        made = await asyncio.gather(*(store.create(given) for _ in range(20)))
        names = {o["metadata"]["name"] for o in made}
        assert len(names) == 20 and all(n.startswith("job-") and len(n) == 9 for n in names)

    async def test_generation_grows_with_spec_and_with_nothing_else(self, store: Store, space: str) -> None:
        made = await store.create(widget("web", space, size=1))
        made = await store.update(labelled(made, app="web"))
        assert made["metadata"]["generation"] == 1
        made = await store.update_status({**made, "status": {"phase": "Running"}})
        assert made["metadata"]["generation"] == 1
        made = await store.update({**made, "spec": {"size": 2}})
        assert made["metadata"]["generation"] == 2
        made = await store.patch(WIDGET, {**named(made), "spec": {"size": 3}})
        assert made["metadata"]["generation"] == 3

    async def test_update_leaves_status_alone_and_update_status_all_else(self, store: Store, space: str) -> None:
        made = await store.create({**widget("web", space, size=1), "status": {"phase": "Lie"}})
        assert "status" not in made
        running = await store.update_status({**made, "spec": {"size": 7}, "status": {"phase": "Running"}})
        assert running["spec"] == {"size": 1} and running["status"] == {"phase": "Running"}
        changed = await store.update({**running, "spec": {"size": 2}, "status": {"phase": "Lie"}})
        assert changed["spec"] == {"size": 2} and changed["status"] == {"phase": "Running"}

    async def test_a_kind_without_status_refuses_update_status(self, store: Store, space: str) -> None:
        made = await store.create(gadget(f"{space}-one", labels={"k8s:app": "web"}))
        for attempt in (
            store.update_status(made),
            store.patch(GADGET, {**named(made), "status": {}}, status=True),
            store.apply(made, "tests", status=True),
        ):
            with pytest.raises(InvalidError, match="no status"):
                await attempt
        made["labels"] = {"k8s:app": "api"}
        assert (await store.update(made))["metadata"]["generation"] == 2
        assert (await store.get(GADGET, f"{space}-one"))["labels"] == {"k8s:app": "api"}
        await store.delete(GADGET, f"{space}-one")

    async def test_the_status_of_a_kind_without_one_of_its_own_is_a_part_like_others(
        self, store: Store, space: str
    ) -> None:
        given = {"apiVersion": GADGET.api_version, "kind": GADGET.kind, "metadata": {"name": f"{space}-two"}}
        made = await store.apply({**given, "status": {"id": 1, "state": "new"}}, "one")
        assert made["status"] == {"id": 1, "state": "new"}
        assert (await store.apply({**given, "status": {"id": 2}}, "one"))["status"] == {"id": 2}
        patched = await store.patch(GADGET, {**named(made), "status": {"state": "old"}})
        assert patched["status"] == {"id": 2, "state": "old"}
        await store.delete(GADGET, f"{space}-two")

    async def test_an_update_that_changes_nothing_makes_no_revision(self, store: Store, space: str) -> None:
        made = await store.create(widget("web", space, size=1))
        assert await store.update(made) == made
        assert await store.patch(WIDGET, {**named(made), "spec": {"size": 1}}) == made

    async def test_an_update_of_an_old_revision_is_a_conflict(self, store: Store, space: str) -> None:
        old = await store.create(widget("web", space, size=1))
        new = await store.update({**old, "spec": {"size": 2}})
        revision = old["metadata"]["resourceVersion"]
        for attempt in (
            store.update({**old, "spec": {"size": 3}}),
            store.update_status({**old, "status": {}}),
            store.patch(WIDGET, {**named(old, resourceVersion=revision), "spec": {"size": 3}}),
        ):
            with pytest.raises(ConflictError, match="read it again"):
                await attempt
        assert await store.get(WIDGET, "web", space) == new

    async def test_an_update_without_revision_always_applies(self, store: Store, space: str) -> None:
        await store.create(widget("web", space, size=1))
        assert (await store.update(widget("web", space, size=2)))["spec"] == {"size": 2}
        shown = await store.update_status({**widget("web", space), "status": {"phase": "Running"}})
        assert shown["status"] == {"phase": "Running"}

    async def test_an_object_made_anew_is_not_the_one_that_was_meant(self, store: Store, space: str) -> None:
        first = await store.create(widget("web", space))
        uid = first["metadata"]["uid"]
        assert (await store.delete(WIDGET, "web", space, uid))["metadata"]["uid"] == uid
        again = await store.create(widget("web", space))
        for attempt in (
            store.delete(WIDGET, "web", space, uid),
            store.update({**widget("web", space), "metadata": {**named(first)["metadata"], "uid": uid}}),
            store.patch(WIDGET, {**named(first, uid=uid), "spec": {"size": 3}}),
        ):
            with pytest.raises(ConflictError, match="read it again"):
                await attempt
        assert await store.get(WIDGET, "web", space) == again

    async def test_what_is_absent_is_not_found(self, store: Store, space: str) -> None:
        for attempt in (
            store.get(WIDGET, "web", space),
            store.update(widget("web", space)),
            store.update_status(widget("web", space)),
            store.patch(WIDGET, widget("web", space)),
            store.apply({**widget("web", space), "status": {"a": 1}}, "tests", status=True),
            store.delete(WIDGET, "web", space),
            store.delete(GADGET, f"{space}-none"),
        ):
            with pytest.raises(NotFoundError, match="not found"):
                await attempt

    async def test_finalizers_hold_an_object_until_the_last_is_gone(self, store: Store, space: str) -> None:
        given = widget("web", space)
        given["metadata"]["finalizers"] = ["tests.ciliate.io/x", "tests.ciliate.io/y"]
        await store.create(given)
        marked = await store.delete(WIDGET, "web", space)
        assert "deletionTimestamp" in marked["metadata"]
        assert await store.delete(WIDGET, "web", space) == marked, "a second delete changes nothing"
        left = await store.patch(WIDGET, named(marked, finalizers=["tests.ciliate.io/y"]))
        assert "deletionTimestamp" in left["metadata"]
        more = ["tests.ciliate.io/y", "tests.ciliate.io/z"]
        with pytest.raises(InvalidError, match=r"tests\.ciliate\.io/z"):
            await store.update({**left, "metadata": {**left["metadata"], "finalizers": more}})
        await store.update({**left, "metadata": {**left["metadata"], "finalizers": []}})
        with pytest.raises(NotFoundError):
            await store.get(WIDGET, "web", space)

    @pytest.mark.parametrize(
        "change",
        [
            {"name": ""},
            {"name": "Web"},
            {"name": "a" * 254},
            {"name": "-a"},
            {"name": "ünïcode"},
            {"name": 7},
            {"namespace": ""},
            {"labels": {"app": 1}},
            {"labels": {"app": "two words"}},
            {"labels": {"a/b/c": "x"}},
            {"labels": ["app"]},
            {"finalizers": "x"},
        ],
    )
    async def test_malformed_metadata_is_refused(self, store: Store, space: str, change: dict[str, Any]) -> None:
        given = widget("web", space)
        given["metadata"].update(change)
        with pytest.raises(InvalidError, match=next(iter(change)).removesuffix("s")):
            await store.create(given)

    async def test_what_can_not_be_an_object_is_refused(self, store: Store, space: str) -> None:
        unknown = {**widget("web", space), "kind": "Wodget"}
        bare: Any = "web"
        for wrong, reason in (
            (unknown, r"unknown kind tests.ciliate.io/v1 Wodget; known are: .*tests.ciliate.io/v1 Widget"),
            ({**widget("web", space), "metadata": None}, "metadata"),
            (bare, "map"),
            (widget("web", space, broken="\ud800"), "JSON"),
            (widget("web", space, broken=object()), "JSON"),
            ({**gadget("one"), "metadata": {"name": "one", "namespace": space}}, "namespace"),
        ):
            for write in (store.create, store.update):
                with pytest.raises(InvalidError, match=reason):
                    await write(wrong)

    async def test_unicode_and_odd_values_survive(self, store: Store, space: str) -> None:
        spec: dict[str, Any] = {"text": "grüße 🐾 \u2028", "big": 2**53 + 1, "float": 0.1, "deep": [[{}]], "": "empty"}
        await store.create(widget("web", space, **spec))
        assert (await store.get(WIDGET, "web", space))["spec"] == spec

    # Merging

    async def test_a_patch_merges_and_removes_and_leaves_the_rest(self, store: Store, space: str) -> None:
        made = await store.create(labelled(widget("web", space, size=1, tags=["a", "b"], deep={"x": 1}), app="web"))
        await store.update_status({**made, "status": {"phase": "Running", "ready": True}})
        patched = await store.patch(
            WIDGET, {**named(made), "spec": {"size": None, "tags": ["c"], "deep": {"y": 2}}, "status": {"phase": "Lie"}}
        )
        assert patched["spec"] == {"tags": ["c"], "deep": {"x": 1, "y": 2}}
        assert patched["status"] == {"phase": "Running", "ready": True}
        assert patched["metadata"]["labels"] == {"app": "web"}
        shown = await store.patch(
            WIDGET, {**named(made), "spec": {"size": 9}, "status": {"ready": None, "why": "x"}}, status=True
        )
        assert shown["status"] == {"phase": "Running", "why": "x"} and "size" not in shown["spec"]
        with pytest.raises(InvalidError, match=r"metadata\.name"):
            await store.patch(WIDGET, {"spec": {}})
        with pytest.raises(InvalidError, match="label"):
            await store.patch(WIDGET, named(made, labels={"app": "two words"}))

    async def test_each_owner_has_what_it_applies_and_no_more(self, store: Store, space: str) -> None:
        first = await store.apply(labelled(widget("web", space, size=1, a={"x": 1, "y": 2}), app="web"), "one")
        assert first["spec"] == {"size": 1, "a": {"x": 1, "y": 2}} and first["metadata"]["uid"]
        await store.apply(widget("web", space, size=2, b=[1, 2]), "two")
        both = await store.get(WIDGET, "web", space)
        assert both["spec"] == {"size": 2, "a": {"x": 1, "y": 2}, "b": [1, 2]}
        assert both["metadata"]["labels"] == {"app": "web"}
        less = await store.apply(widget("web", space, a={"y": 2}), "one")
        assert less["spec"] == {"size": 2, "a": {"y": 2}, "b": [1, 2]}, "what the second owner has too stays"
        assert not less["metadata"].get("labels")
        again = await store.apply(widget("web", space, a={"y": 2}), "one")
        assert again == less, "nothing new makes no revision"
        updated = await store.update({**less, "spec": {**less["spec"], "by": "hand"}})
        last = await store.apply(widget("web", space), "two")
        assert last["spec"] == {"a": {"y": 2}, "by": "hand"}
        assert last["metadata"]["uid"] == first["metadata"]["uid"] == updated["metadata"]["uid"]

    async def test_status_is_applied_apart_from_the_rest(self, store: Store, space: str) -> None:
        made = await store.apply({**widget("web", space, size=1), "status": {"phase": "Lie"}}, "one")
        assert "status" not in made
        shown = {**widget("web", space, size=9), "status": {"phase": "Running", "id": 7}}
        assert (await store.apply(shown, "one", status=True))["status"] == {"phase": "Running", "id": 7}
        assert (await store.apply(widget("web", space, size=2), "one"))["status"] == {"phase": "Running", "id": 7}
        last = await store.apply({**shown, "status": {"id": 7}}, "one", status=True)
        assert last["status"] == {"id": 7} and last["spec"] == {"size": 2}

    # Many

    async def test_lists_take_namespaces_fields_and_labels(self, store: Store, space: str) -> None:
        for number in range(6):
            where = space if number % 2 else f"{space}-2"
            await store.create(labelled(widget(f"p{number}", where, node=f"n{number % 3}"), third=str(number % 3)))

        async def names(namespace: str | None, **selection: Any) -> list[str]:
            items = (await store.list(WIDGET, namespace, **selection)).items
            return [o["metadata"]["name"] for o in items if o["metadata"]["namespace"].startswith(space)]

        assert await names(None) == ["p1", "p3", "p5", "p0", "p2", "p4"]
        assert await names(f"{space}-2") == ["p0", "p2", "p4"]
        assert await names(None, fields={"spec.node": "n1"}) == ["p1", "p4"]
        assert await names(None, labels={"third": "1"}) == ["p1", "p4"]
        assert await names(space, fields={"spec.node": "n1", "metadata.name": "p1"}, labels={"third": "1"}) == ["p1"]
        assert await names(None, labels={"third": "1", "absent": "x"}) == []
        assert await names(space, fields={"spec.absent": ""}) == await names(space)

    async def test_pages_make_up_the_list(self, store: Store, space: str) -> None:
        await asyncio.gather(*(store.create(widget(f"p{number}", space)) for number in range(23)))
        listed = await store.list(WIDGET, space)
        pages = [page async for page in store.pages(WIDGET, space)]
        assert pages and pages[-1].revision
        assert {o["metadata"]["name"]: o for page in pages for o in page.items} == {
            o["metadata"]["name"]: o for o in listed.items
        }
        assert [page.items async for page in store.pages(WIDGET, space, {"metadata.name": "none"})] == [[]]

    async def test_a_reader_gets_the_fields_that_it_wants(self, store: Store, space: str) -> None:
        wanted = WIDGET.only("metadata.labels", "spec.parts[].name", "status.phase")
        assert wanted == WIDGET, "it is the same kind"
        since = (await store.list(WIDGET, space)).revision
        parts = [{"name": "a", "weight": 1}, {"weight": 2}]
        made = await store.create(labelled(widget("web", space, parts=parts, size=1), app="web"))
        meta = {key: made["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion", "generation")}
        part = {"metadata": {**meta, "labels": {"app": "web"}}, "spec": {"parts": [{"name": "a"}, {}]}}
        assert (await store.list(wanted, space)).items == [part]
        assert await store.get(wanted, "web", space) == part
        assert (await collect(store, 1, since, wanted, namespace=space))[0].object == part
        assert (await store.list(wanted, space, {"spec.size": "1"})).items[0]["metadata"]["uid"] == meta["uid"]
        assert (await store.list(wanted, space, {"spec.size": "2"})).items == []

    async def test_a_part_of_an_object_is_not_taken_for_the_whole(self, store: Store, space: str) -> None:
        made = await store.create(widget("web", space, size=1, more=2))
        part = (await store.list(WIDGET.only("spec.size"), space)).items[0]
        with pytest.raises(InvalidError, match="kind"):
            await store.update({**part, "spec": {"size": 2}})
        changed = await store.patch(WIDGET, {"metadata": part["metadata"], "spec": {"size": 2}})
        assert changed["spec"] == {"size": 2, "more": 2} and changed["metadata"]["uid"] == made["metadata"]["uid"]

    # Watching

    async def test_changes_come_in_order_and_with_their_last_state(self, store: Store, space: str) -> None:
        since = (await store.list(WIDGET, space)).revision
        made = await store.create(widget("web", space))
        await store.create(widget("api", space))
        changed = await store.update({**made, "spec": {"size": 2}})
        await store.delete(WIDGET, "web", space)
        events = await collect(store, 4, since, namespace=space)
        assert brief(events) == [("ADDED", "web"), ("ADDED", "api"), ("MODIFIED", "web"), ("DELETED", "web")]
        assert events[2].object == changed and events[3].object["spec"] == {"size": 2}
        assert [e.revision for e in events] == [e.object["metadata"]["resourceVersion"] for e in events]
        assert len({e.revision for e in events}) == 4

    async def test_other_kinds_and_namespaces_are_not_seen(self, store: Store, space: str) -> None:
        since = (await store.list(WIDGET, space)).revision
        await store.create(gadget(f"{space}-one"))
        await store.create(widget("web", f"{space}-2"))
        await store.create(widget("web", space))
        events = await collect(store, 1, since, namespace=space)
        assert events[0].object["metadata"]["namespace"] == space
        await store.delete(GADGET, f"{space}-one")

    @pytest.mark.parametrize("selection", ["fields", "labels"])
    async def test_objects_come_and_go_as_they_match(self, store: Store, space: str, selection: str) -> None:
        since = (await store.list(WIDGET, space)).revision
        chosen = {"fields": {"spec.node": "a"}, "labels": {"node": "a"}}[selection]

        def placed(node: str) -> Object:
            return labelled(widget("web", space, node=node), node=node)

        await store.create(placed("b"))
        moved = await store.update(placed("a"))
        await store.update_status({**moved, "status": {"phase": "Running"}})
        await store.update(placed("b"))
        await store.delete(WIDGET, "web", space)
        await store.create(labelled(widget("last", space, node="a"), node="a"))
        known: set[str] = set()
        seen: list[str] = []
        async with (
            asyncio.timeout(20),
            aclosing(store.watch(WIDGET, since, space, **{selection: chosen})) as events,  # type: ignore[type-var]
        ):
            async for event in events:
                if event.type is WatchType.BOOKMARK:
                    continue
                name = event.object["metadata"]["name"]
                if event.type is not WatchType.DELETED:
                    known.add(name)
                    seen.append(f"+{name}")
                elif name in known:
                    known.remove(name)
                    seen.append(f"-{name}")
                if name == "last":
                    break
        assert seen == ["+web", "+web", "-web", "+last"]

    async def test_a_revision_that_is_none_is_refused(self, store: Store, space: str) -> None:
        for nonsense in ("", "latest"):
            with pytest.raises(StoreError):
                await collect(store, 1, nonsense)

    async def test_silence_is_no_event(self, store: Store, space: str) -> None:
        since = (await store.list(WIDGET, space)).revision
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), aclosing(store.watch(WIDGET, since, space)) as watch:  # type: ignore[type-var]
                async for event in watch:
                    assert event.type is WatchType.BOOKMARK

    async def test_who_follows_has_all_objects_and_then_every_change(self, store: Store, space: str) -> None:
        await store.create(widget("web", space, size=1))
        async with asyncio.timeout(20), aclosing(follow(store, WIDGET.only("spec.size"), space)) as changes:  # type: ignore[type-var]
            first = await anext(changes)
            assert [o["spec"] for o in first.upserts] == [{"size": 1}] and first.complete
            await store.patch(WIDGET, {**named(widget("web", space)), "spec": {"size": 2}})
            assert [o["spec"] for o in await upserts(changes)] == [{"size": 2}]
            await store.delete(WIDGET, "web", space)
            while not (batch := await anext(changes)).deletes:
                pass
            assert [key.name for key in batch.deletes] == ["web"]

    async def test_who_follows_nothing_is_told_that_it_is_all(self, store: Store, space: str) -> None:
        async with asyncio.timeout(20), aclosing(follow(store, WIDGET, space)) as changes:  # type: ignore[type-var]
            assert await anext(changes) == ObjectChanges()

    async def test_a_watcher_that_is_cancelled_while_it_is_woken_ends(self, store: Store, space: str) -> None:
        since = (await store.list(WIDGET, space)).revision

        async def watch_for_ever() -> None:
            async for _ in store.watch(WIDGET, since, space):
                pass

        async with asyncio.timeout(20):
            for number in range(20):
                watching = asyncio.create_task(watch_for_ever())
                await store.create(widget(f"p{number}", space))
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
