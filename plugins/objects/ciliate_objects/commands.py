"""`ciliate apply`, `delete` and `get`: the cluster's objects, as kubectl would treat them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

import typer
from ciliate.cli.cluster import NameOption, find_cluster
from ciliate.cli.dispatch import CommandError
from ciliate.config import CoreConfig
from ciliate.model.kinds import NAMESPACE
from ciliate.places import open_store
from ciliate.store import Kind, NotFoundError, Object, Store, StoreError

from ciliate_objects.applying import DEFAULT_NAMESPACE, Outcome, apply_one, placed
from ciliate_objects.changes import wait_gone
from ciliate_objects.kinds import KnownKinds, Reviewers, called, kinds_for
from ciliate_objects.manifests import BadManifest, Manifest, read_manifests
from ciliate_objects.output import Format, names, table, whole
from ciliate_objects.selectors import parse_selector
from ciliate_objects.waiting import wait_for

FileOption = Annotated[
    list[str], typer.Option("-f", "--filename", metavar="FILE|FOLDER|-", help="Manifests; may be repeated.")
]
NamespaceOption = Annotated[str, typer.Option("-n", "--namespace", help="The namespace; default: default.")]
RecursiveOption = Annotated[bool, typer.Option("-R", "--recursive", help="Folders inside folders too.")]
SelectorOption = Annotated[str, typer.Option("-l", "--selector", help="Labels, as app=web,tier!=db.")]
TimeoutOption = Annotated[float, typer.Option("--timeout", help="Seconds to wait at most.")]


@asynccontextmanager
async def _store(config: CoreConfig, kinds: Sequence[Kind]) -> AsyncIterator[Store]:
    store = open_store(config, kinds)
    try:
        yield store
    finally:
        await store.close()


def apply(
    filename: FileOption,
    namespace: NamespaceOption = "",
    wait: Annotated[bool, typer.Option("--wait", help="Until policies are enforced everywhere, pods Ready.")] = False,
    timeout: TimeoutOption = 60.0,
    recursive: RecursiveOption = False,
    name: NameOption = "lab",
) -> None:
    """Create or change the objects of manifests; a bad one is named, and the others are applied."""
    config = find_cluster(name).config
    reviewers = Reviewers.load(config)
    kinds = reviewers.kinds()
    manifests = list(read_manifests(filename, recursive))
    outcome = Outcome()

    async def run() -> None:
        async with _store(config, kinds.kinds) as store:
            for manifest in sorted(manifests, key=_namespaces_first):
                await apply_one(store, kinds, reviewers, manifest, namespace, outcome)
            if wait:
                await _wait_for_all(store, outcome, timeout, config.cluster.namespace)

    asyncio.run(run())
    if not manifests:
        raise CommandError(f"-f {', '.join(filename)}: no object in there")
    outcome.end()


def _namespaces_first(manifest: Manifest | BadManifest) -> bool:
    return not (isinstance(manifest, Manifest) and manifest.obj["kind"] == NAMESPACE.kind)


async def _wait_for_all(store: Store, outcome: Outcome, timeout: float, namespace: str) -> None:
    waits = [wait_for(store, kind, obj, timeout, namespace) for kind, obj in outcome.stored]
    for result in await asyncio.gather(*waits, return_exceptions=True):
        if isinstance(result, CommandError):
            outcome.fail("--wait", result)
        elif isinstance(result, BaseException):
            raise result


def delete(
    words: Annotated[list[str] | None, typer.Argument(metavar="KIND NAME...", help="Or KIND/NAME...")] = None,
    filename: Annotated[list[str] | None, typer.Option("-f", "--filename", metavar="FILE|FOLDER|-")] = None,
    namespace: NamespaceOption = "",
    selector: SelectorOption = "",
    everything: Annotated[bool, typer.Option("--all", help="All objects of the kind in the namespace.")] = False,
    ignore_not_found: Annotated[bool, typer.Option("--ignore-not-found", help="What is absent is no error.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until they are really gone.")] = True,
    timeout: TimeoutOption = 60.0,
    recursive: RecursiveOption = False,
    name: NameOption = "lab",
) -> None:
    """Delete objects, by manifest or by kind and name."""
    config = find_cluster(name).config
    outcome = Outcome()
    reviewers = Reviewers.load(config) if filename else None
    kinds = reviewers.kinds() if reviewers else KnownKinds(())
    targets: list[tuple[Kind, str, str]] = []
    for manifest in read_manifests(filename or [], recursive):
        if isinstance(manifest, BadManifest):
            outcome.fail(manifest.where, manifest.problem)
            continue
        try:
            kind = kinds.of(manifest.obj)
            meta = placed(kind, manifest.obj, namespace)["metadata"]
            targets.append((kind, meta.get("namespace", ""), str(meta.get("name", ""))))
        except CommandError as error:
            outcome.fail(manifest.where, error)
    named = _named(config, words or [])
    if not filename and not named:
        raise CommandError("name objects: `-f FILE`, or KIND NAME")
    if not selector and not everything and any(not one for _, one in named):
        raise CommandError("name the objects, or select with -l, or say --all")

    async def run() -> None:
        async with _store(config, kinds.kinds) as store:
            for kind, one in named:
                place = (namespace or DEFAULT_NAMESPACE) if kind.namespaced else ""
                found = [one] if one else [o["metadata"]["name"] for o in await _select(store, kind, place, selector)]
                targets.extend((kind, place, each) for each in found)
            for target in targets:
                await _delete_one(store, target, ignore_not_found, timeout if wait else 0, outcome)

    asyncio.run(run())
    outcome.end()


async def _delete_one(
    store: Store, target: tuple[Kind, str, str], ignore_not_found: bool, timeout: float, outcome: Outcome
) -> None:
    kind, namespace, name = target
    label = called(kind, name).replace("/", ' "') + '"'
    try:
        last = await store.delete(kind, name, namespace)
        print(f"{label} deleted", flush=True)
        if timeout and last["metadata"].get("finalizers"):
            await wait_gone(store, kind, last, timeout)
    except NotFoundError as error:
        if not ignore_not_found:
            outcome.fail(label, error)
    except (CommandError, StoreError) as error:
        outcome.fail(label, error)


def _named(config: CoreConfig, words: Sequence[str]) -> list[tuple[Kind, str]]:
    """(kind, name or nothing) of `KIND`, `KIND NAME...`, `KIND,KIND`, `KIND/NAME...`. Raises CommandError."""
    if not words:
        return []
    if any("/" in word for word in words):
        if bad := next((word for word in words if word.count("/") != 1), None):
            raise CommandError(f"{bad!r}: give either KIND NAME... or KIND/NAME...")
        pairs = [word.split("/") for word in words]
        return list(zip(kinds_for(config, [k for k, _ in pairs]), [n for _, n in pairs], strict=True))
    kinds = kinds_for(config, words[0].split(","))
    return [(kind, one) for kind in kinds for one in words[1:] or [""]]


async def _select(store: Store, kind: Kind, namespace: str | None, selector: str) -> list[Object]:
    matches = parse_selector(selector)
    listed = await store.list(kind, (namespace or None) if kind.namespaced else None)
    return [obj for obj in listed.items if matches(obj["metadata"].get("labels") or {})]


def get(
    words: Annotated[list[str], typer.Argument(metavar="KIND [NAME...]", help="Or KIND/NAME..., KIND,KIND.")],
    namespace: NamespaceOption = "",
    all_namespaces: Annotated[bool, typer.Option("-A", "--all-namespaces", help="Of all namespaces.")] = False,
    output: Annotated[
        Format, typer.Option("-o", "--output", help="table (or wide), json, yaml or name.")
    ] = Format.TABLE,
    selector: SelectorOption = "",
    name: NameOption = "lab",
) -> None:
    """Show objects."""
    config = find_cluster(name).config
    named = _named(config, words)
    outcome = Outcome()
    found: dict[Kind, list[Object]] = {}
    place = None if all_namespaces else namespace or DEFAULT_NAMESPACE

    async def run() -> None:
        async with _store(config, list(dict.fromkeys(kind for kind, _ in named))) as store:
            for kind, one in named:
                if not one:
                    found.setdefault(kind, []).extend(await _select(store, kind, place, selector))
                    continue
                if place is None and kind.namespaced:
                    raise CommandError("an object is named: say its namespace with -n, not -A")
                try:
                    obj = await store.get(kind, one, (place or "") if kind.namespaced else "")
                except NotFoundError as error:
                    outcome.fail(called(kind, one), error)
                else:
                    found.setdefault(kind, []).append(obj)

    asyncio.run(run())
    single = len(named) == 1 and bool(named[0][1])
    _show(found, single, output, place)
    outcome.end()


def _show(found: dict[Kind, list[Object]], single: bool, output: Format, place: str | None) -> None:
    objects = [obj for each in found.values() for obj in each]
    if output in (Format.JSON, Format.YAML):
        if objects or not single:
            print(whole(objects, single, output))
        return
    if not objects and not single:
        namespaced = any(kind.namespaced for kind in found)
        print("No resources found" + (f" in {place} namespace." if place and namespaced else ""), file=sys.stderr)
    parts = [(kind, each) for kind, each in found.items() if each]
    if output is Format.NAME:
        print("\n".join(names(kind, each) for kind, each in parts))
    else:
        print("\n\n".join(table(kind, each, place is None) for kind, each in parts), end="\n" if parts else "")
