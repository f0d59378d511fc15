"""Finding plugins and drivers: entry points through stevedore, each failure with its own policy.

A plugin that is not listed is not imported. One that is absent, does not import or breaks a hook's contract is refused
by name, and the others go on.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

import pluggy
from stevedore.driver import DriverManager
from stevedore.exception import NoMatches

from ciliate import hookspecs
from ciliate.plugin import Plugin

GROUP = "ciliate.plugins"


@dataclass
class Loaded:
    """Plugins that are in, by name and in setup order, and the reason for each that is not."""

    manager: pluggy.PluginManager
    plugins: dict[str, Plugin] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)  # the role that each plays in this process
    optional: set[str] = field(default_factory=set)  # known not to be essential, refused later or not

    def is_essential(self, name: str) -> bool:
        """Whether the node needs a plugin to be ready. One that can't be imported may be essential, so it is."""
        return self.plugins[name].essential if name in self.plugins else name not in self.optional


def available() -> list[str]:
    """Names of all installed plugins, without importing any."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load_driver(group: str, name: str) -> Any:
    """The class or function that a driver's entry point names. Raises LookupError with the names that there are."""
    try:
        return DriverManager(group, name, invoke_on_load=False).driver
    except NoMatches:
        names = ", ".join(sorted({p.name for p in entry_points(group=group)})) or "none"
        raise LookupError(f"no driver {name!r} in {group}; installed are {names}") from None


def role_in(plugin: Plugin, process: str, role: str, processes: Mapping[str, Iterable[str]]) -> str | None:
    """The role that a plugin plays in a process, or None if it has no part there.

    One that `processes` names runs there and in no other process of the node; the operator's are not the node's.
    """
    if role in ("*", "operator") or not any(plugin.name in names for names in processes.values()):
        return role if role == "*" or role in plugin.roles else None
    if plugin.name not in processes.get(process, ()):
        return None
    return process if process in plugin.roles else next((r for r in plugin.roles if r != "operator"), None)


def load_plugins(
    names: Iterable[str], role: str, process: str = "", processes: Mapping[str, Iterable[str]] | None = None
) -> Loaded:
    """Import and register the listed plugins that take part in a process, and order them by what they need."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    loaded = Loaded(manager)
    found: dict[str, Plugin] = {}
    for name in dict.fromkeys(names):
        plugin = _load_one(name, loaded)
        part = role_in(plugin, process or role, role, processes or {}) if plugin is not None else None
        if plugin is not None and part is not None:
            found[name], loaded.roles[name] = plugin, part
    _refuse_split(found, loaded)
    for name in _order(found, loaded):
        plugin = found[name]
        try:
            manager.register(plugin, name=name)
        except (pluggy.PluginValidationError, ValueError) as error:
            loaded.refused[name] = f"breaks a hook's contract: {error}"
        else:
            loaded.plugins[name] = plugin
    return loaded


def _load_one(name: str, loaded: Loaded) -> Plugin | None:
    points = [point for point in entry_points(group=GROUP) if point.name == name]
    if not points:
        known = ", ".join(available()) or "none"
        loaded.refused[name] = f"is not installed (no entry point {name!r} in {GROUP}); available are {known}"
        return None
    try:
        made = load_driver(GROUP, name)
        plugin = made()
    except Exception as error:  # a stranger's module may raise anything
        problem = f"{type(error).__name__}: {error}{_where(error)}"
        loaded.refused[name] = f"can't be imported from {points[0].value}: {problem}"
        return None
    if not isinstance(plugin, Plugin):
        loaded.refused[name] = f"{points[0].value} is not a subclass of ciliate.plugin.Plugin"
        return None
    if not plugin.essential:
        loaded.optional.add(name)
    if (called := getattr(plugin, "name", "")) != name:
        loaded.refused[name] = (
            f"{points[0].value} calls itself {called!r}: its `name` must be the entry point's, {name!r}"
        )
        return None
    if wrong := _wrong_hooks(plugin):
        loaded.refused[name] = f"breaks the hooks' contract: {wrong}"
        return None
    return plugin


def _where(error: Exception) -> str:
    """File and line of an exception, for its message."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def _wrong_hooks(plugin: Plugin) -> str:
    """What is wrong with the names and marks of a plugin's hooks, which pluggy would pass over; empty: nothing."""
    for name in (name for name in dir(plugin) if name.startswith("ciliate_")):
        if not hasattr(hookspecs, name):
            known = ", ".join(hook for hook in dir(hookspecs) if hook.startswith("ciliate_"))
            return f"there is no hook {name}; there are {known}"
        if not hasattr(getattr(plugin, name), f"{hookspecs.PROJECT}_impl"):
            return f"{name} is not marked by @hookimpl of ciliate.hookspecs"
    return ""


def _refuse_split(found: dict[str, Plugin], loaded: Loaded) -> None:
    """Refuse, until nothing changes, plugins whose partners are not in this process."""
    while True:
        lacking = {
            name: [need for need in plugin.needs_same_process if need not in found] for name, plugin in found.items()
        }
        lacking = {name: needs for name, needs in lacking.items() if needs}
        if not lacking:
            return
        for name, needs in lacking.items():
            loaded.refused[name] = f"needs {', '.join(needs)} in the same process; enable them there under `plugins:`"
            del found[name]


def _order(found: dict[str, Plugin], loaded: Loaded) -> list[str]:
    """Names so that each comes after those that it needs; a circle is refused."""
    ordered: list[str] = []
    pending = dict(found)
    while pending:
        free = [n for n, p in pending.items() if not any(need in pending for need in p.needs)]
        if not free:
            for name in pending:
                loaded.refused[name] = f"is in a circle of needs: {', '.join(pending)}"
            return ordered
        for name in free:
            ordered.append(name)
            del pending[name]
    return ordered
