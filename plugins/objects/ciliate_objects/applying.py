"""One manifest's way into the store: its namespace, what plugins say of it, and what is printed."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import typer
from ciliate.cli.dispatch import CommandError
from ciliate.model.kinds import NAMESPACE
from ciliate.review import Severity
from ciliate.store import Kind, NotFoundError, Object, Store, StoreError

from ciliate_objects.changes import apply_object
from ciliate_objects.kinds import KnownKinds, Reviewers, called
from ciliate_objects.manifests import BadManifest, Manifest

DEFAULT_NAMESPACE = "default"


@dataclass
class Outcome:
    """What has gone wrong so far: nothing that goes wrong with one object keeps the others back."""

    failures: int = 0
    stored: list[tuple[Kind, Object]] = field(default_factory=list)

    def fail(self, where: str, problem: object) -> None:
        """Print a problem and count it."""
        print(f"error: {where}: {problem}", file=sys.stderr)
        self.failures += 1

    def end(self) -> None:
        """Exit with 1 if anything has failed."""
        if self.failures:
            raise typer.Exit(1)


async def apply_one(
    store: Store,
    kinds: KnownKinds,
    reviewers: Reviewers,
    manifest: Manifest | BadManifest,
    namespace: str,
    outcome: Outcome,
) -> None:
    """Review and store one object, and print what became of it."""
    if isinstance(manifest, BadManifest):
        outcome.fail(manifest.where, manifest.problem)
        return
    try:
        kind = kinds.of(manifest.obj)
        obj = placed(kind, manifest.obj, namespace)
        label = called(kind, str(obj["metadata"].get("name", "")))
        if not _reviewed(reviewers, obj, f"{manifest.where}: {label}", outcome):
            return
        await _warn_of_missing_namespace(store, obj)
        if "name" not in obj["metadata"] and "generateName" in obj["metadata"]:
            verb, stored = "created", await store.create(obj)
        else:
            verb, stored = await apply_object(store, kind, obj)
    except (CommandError, StoreError) as error:
        outcome.fail(manifest.where, error)
        return
    print(f"{called(kind, stored['metadata']['name'])} {verb}", flush=True)
    outcome.stored.append((kind, stored))


def placed(kind: Kind, obj: Object, namespace: str) -> Object:
    """The object in its namespace. Raises CommandError."""
    given = obj["metadata"].get("namespace")
    if not kind.namespaced:
        return obj
    if given and namespace and given != namespace:
        raise CommandError(f"metadata.namespace: {given!r} is not the {namespace!r} of -n; leave one of them out")
    return {**obj, "metadata": {**obj["metadata"], "namespace": given or namespace or DEFAULT_NAMESPACE}}


def _reviewed(reviewers: Reviewers, obj: Object, label: str, outcome: Outcome) -> bool:
    """Print what plugins find; whether the object may be stored."""
    try:
        findings = reviewers.findings(obj)
    except Exception as error:  # a plugin's bug is no reason to store what nobody has looked at
        outcome.fail(label, f"a plugin failed to review it: {type(error).__name__}: {error}")
        return False
    invalid = [f for f in findings if f.severity is Severity.INVALID]
    for finding in findings:
        if finding.severity is Severity.INVALID:
            outcome.fail(label, f"{finding.path}: {finding.message}")
        else:
            print(f"warning: {label}: {finding.path}: {finding.message}", file=sys.stderr)
    return not invalid


async def _warn_of_missing_namespace(store: Store, obj: Object) -> None:
    namespace = obj["metadata"].get("namespace", "")
    if namespace:
        try:
            await store.get(NAMESPACE, namespace)
        except NotFoundError:
            print(f"warning: namespace {namespace} does not exist: it has no labels to select by", file=sys.stderr)
