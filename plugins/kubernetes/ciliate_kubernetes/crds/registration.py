"""The operator's part: register what is missing, bring up to date what is older, leave alone what is newer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from enum import Enum

from ciliate.backoff import Backoff
from ciliate.context import Context
from ciliate.store import AlreadyExistsError, NotFoundError, Object, Store, StoreError

from ciliate_kubernetes.crds.definition import (
    REVISION,
    REVISION_LABEL,
    VERSION,
    VERSION_LABEL,
    Definition,
    definition_object,
)
from ciliate_kubernetes.crds.kinds import DEFINITIONS
from ciliate_kubernetes.install.kinds import CUSTOM_RESOURCE_DEFINITION

LOOK = 300.0
"""Seconds between two looks, in case somebody has deleted one or put an older one in its place."""


class Standing(Enum):
    """How a definition that is there compares with ours."""

    OLDER = "older"
    SAME = "same"
    NEWER = "newer"


class Registration:
    """Keeps the definitions, while this operator leads."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self) -> None:
        """Register all, and look again now and then. What can't be registered is named, and tried again."""
        backoff = Backoff(0.5, 30.0)
        while True:
            problems = await register_all(self._context.store, self._note)
            if problems:
                self._context.health.not_ready("; ".join(problems), "definitions")
                await backoff.wait()
                continue
            backoff.reset()
            self._context.health.ready("definitions")
            await asyncio.sleep(LOOK)

    def _note(self, name: str, what: str) -> None:
        self._context.log.info("custom resource definition", name=name, done=what)


async def register_all(store: Store, note: Callable[[str, str], None] = lambda name, what: None) -> list[str]:
    """Make the store know all kinds; what went wrong, a sentence each. note: called with what was done to which."""
    problems = []
    for definition in DEFINITIONS:
        try:
            if done := await register(store, definition):
                note(definition.name, done)
        except StoreError as error:
            problems.append(f"{definition.name}: {error}")
    return problems


async def register(store: Store, definition: Definition) -> str:
    """Make the store know a kind; what was done, empty: nothing. Raises StoreError."""
    wanted = definition_object(definition)
    while True:
        try:
            found = await store.get(CUSTOM_RESOURCE_DEFINITION, definition.name)
        except NotFoundError:
            try:
                await store.create(wanted)
            except AlreadyExistsError:
                continue
            return "registered"
        if standing(found) is not Standing.OLDER:
            return ""
        await store.update(merged(found, wanted))
        return f"brought up to date from {version_text(found)}"


def standing(found: Object) -> Standing:
    """How a definition compares with ours, by its labels. One that does not say its version is older than any."""
    theirs, ours = parse_version(_label(found, VERSION_LABEL)), parse_version(VERSION)
    if theirs != ours:
        return Standing.NEWER if theirs > ours else Standing.OLDER
    revision = _label(found, REVISION_LABEL)
    number = int(revision) if revision.isdecimal() else 0
    if number == REVISION:
        return Standing.SAME
    return Standing.NEWER if number > REVISION else Standing.OLDER


def merged(found: Object, wanted: Object) -> Object:
    """Ours in place of one that is there; its other labels stay, and versions of which objects may be stored."""
    labels = {**(found["metadata"].get("labels") or {}), **wanted["metadata"]["labels"]}
    names = {version["name"] for version in wanted["spec"]["versions"]}
    stored = set((found.get("status") or {}).get("storedVersions") or ()) - names
    kept = [
        {**version, "served": False, "storage": False}
        for version in found["spec"].get("versions") or ()
        if version["name"] in stored
    ]
    spec = {**wanted["spec"], "versions": [*wanted["spec"]["versions"], *kept]}
    return {**found, "metadata": {**found["metadata"], "labels": labels}, "spec": spec}


def parse_version(text: str) -> tuple[int, int, int]:
    """A version's numbers; zeros if it is none."""
    match = re.match(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?", text)
    if match is None:
        return 0, 0, 0
    major, minor, patch = (int(part or 0) for part in match.groups())
    return major, minor, patch


def version_text(found: Object) -> str:
    """A definition's version, for people."""
    revision = _label(found, REVISION_LABEL)
    return (_label(found, VERSION_LABEL) or "one without a version") + (f", revision {revision}" if revision else "")


def _label(found: Object, name: str) -> str:
    return str((found["metadata"].get("labels") or {}).get(name) or "")
