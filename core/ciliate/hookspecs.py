"""Every hook of Ciliate, with its contract: the table of contents of what a plugin can do.

A hook is an ordinary function that returns within 1 ms and never waits. All but `ciliate_setup` and `ciliate_stop`
are pure: they say what a plugin has and touch nothing. A plugin implements the hooks that it wants, as methods of its
class.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from ciliate.api.routes import Route
    from ciliate.context import Context
    from ciliate.events import TopicSpec
    from ciliate.maps.spec import MapSpec
    from ciliate.programs.points import PointProgram
    from ciliate.review import Finding
    from ciliate.store import Kind, Object
    from ciliate.tables.spec import TableSpec

PROJECT = "ciliate"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ciliate_kinds() -> Iterable[Kind]:  # type: ignore[empty-body]
    """Kinds of objects that the plugin reads or writes, beyond those of `ciliate.model.kinds`."""


@hookspec
def ciliate_tables() -> Iterable[TableSpec[Any]]:  # type: ignore[empty-body]
    """Tables that the plugin writes; it alone may open a writer on them."""


@hookspec
def ciliate_topics() -> Iterable[TopicSpec[Any]]:  # type: ignore[empty-body]
    """Topics of events that the plugin emits."""


@hookspec
def ciliate_maps() -> Iterable[MapSpec]:  # type: ignore[empty-body]
    """BPF maps that the plugin owns. The registry creates and pins them before any setup."""


@hookspec
def ciliate_programs() -> Iterable[PointProgram]:  # type: ignore[empty-body]
    """BPF programs for the points of a packet's path. Called after setup; the process loads them and offers them.

    A program that is refused is left out, and the plugin's health says why.
    """


@hookspec
def ciliate_routes() -> Iterable[Route]:  # type: ignore[empty-body]
    """Routes that the plugin serves on the process's API socket. Called after setup."""


@hookspec
def ciliate_review(obj: Object) -> Iterable[Finding]:  # type: ignore[empty-body]
    """What is wrong with an object, or not enforced, before it is stored. Pure: called without an agent, by the CLI."""


@hookspec
def ciliate_setup(context: Context) -> None:
    """Take up work: open tables and maps, provide services, spawn tasks. Called once, after the plugins that it needs.

    An exception refuses the plugin by name; the others go on.
    """


@hookspec
def ciliate_stop() -> None:
    """Let go of what no task holds. Called in the reverse order of setup, after the plugin's tasks have ended."""
