"""Which plugin runs in which process of a node: configuration first, then what each plugin declares.

Made in a short-lived process of its own (`python -m ciliate_node.plan`): plugins are imported for their declarations,
and the supervisor must not carry, or break on, what they import.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path

import msgspec
from ciliate.config import ConfigError, CoreConfig, core_config, load_settings
from ciliate.loading import GROUP, load_driver
from ciliate.plugin import Plugin

from ciliate_node.placement import Budget, Placement, Plan

OURS = frozenset(
    f"ciliate-{room}"
    for room in (
        *("cni", "ipam", "policy", "loadbalancer", "routing", "l7-envoy", "dns", "hubble"),
        *("kubernetes", "store-local", "lab", "objects", "node"),
    )
)
"""Distributions of this project; every other is a third party's."""
DECLARATIONS = frozenset(
    f"ciliate_{hook}" for hook in ("setup", "stop", "tables", "topics", "maps", "routes", "kinds", "review")
)
"""Hooks that say what a plugin has. Who implements another one answers calls of other plugins, in their process."""
_NO_DRIVERS = frozenset({GROUP, "ciliate.commands", "ciliate.dbg_commands"})


def make_plan(config: CoreConfig, found: Mapping[str, type[Plugin]], third: Iterable[str]) -> Plan:
    """Place every enabled plugin. `third`: names that get a process of their own unless configuration places them.

    Raises ConfigError, naming who would be separated from whom.
    """
    import socket

    third = set(third)
    placed: dict[str, list[str]] = {process: list(names) for process, names in config.processes.items()}
    _check_names(config)
    for name in config.plugins:
        if not any(name in names for names in config.processes.values()):
            for process in _processes_of(name, found, third):
                placed.setdefault(process, []).append(name)
    _refuse_split(placed, found)
    placements = []
    for process, names in sorted(placed.items(), key=lambda item: (item[0] != "agent", item[1] <= sorted(third))):
        alone = bool(names) and set(names) <= third and process not in config.processes
        essential = any(found[name].essential for name in names if name in found)
        placements.append(Placement(process, names, essential, _budget(config, names[0]) if alone else None))
    ours = [name for name in config.plugins if name in found and name not in third]
    return Plan(config.node.name or socket.gethostname(), config.node.run_dir, placements, ours)


def _processes_of(name: str, found: Mapping[str, type[Plugin]], third: set[str]) -> list[str]:
    if name in third:
        return [name]
    if name not in found:  # can't be imported: the agent is where its refusal is looked for
        return ["agent"]
    return [role for role in found[name].roles if role != "operator"]


def _check_names(config: CoreConfig) -> None:
    seen: dict[str, str] = {}
    for process, names in config.processes.items():
        for name in names:
            if name not in config.plugins:
                raise ConfigError(f"processes.{process}: plugin {name!r} is not enabled; list it under `plugins:`")
            if name in seen:
                raise ConfigError(f"processes: plugin {name!r} is in {seen[name]} and in {process}; leave it in one")
            seen[name] = process


def _refuse_split(placed: Mapping[str, list[str]], found: Mapping[str, type[Plugin]]) -> None:
    for process, names in placed.items():
        for name in names:
            for need in found[name].needs_same_process if name in found else ():
                if need not in names:
                    others = ", ".join(p for p, n in placed.items() if need in n)
                    where = f"is placed in {others}" if others else "is not enabled"
                    raise ConfigError(
                        f"processes.{process}: plugin {name} needs {need} in its own process, but {need} {where};"
                        f" put both in one process under `processes:`"
                    )


def _budget(config: CoreConfig, name: str) -> Budget:
    values = {"memory": config.isolation.memory, "cpu": config.isolation.cpu, **config.isolation.budgets.get(name, {})}
    try:
        return Budget(_bytes(str(values["memory"])), float(values["cpu"]))
    except ValueError as error:
        raise ConfigError(f"isolation (budget of {name}): {error}") from error


def _bytes(text: str) -> int:
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    if not number.isdigit():
        raise ValueError(f"memory: {text!r} must be bytes, or a number with K, M or G")
    return int(number) * unit


def is_third_party(name: str, plugin: type[Plugin]) -> bool:
    """Whether a plugin is a stranger's that can do with a process of its own: no driver, no answering hooks."""
    (point, *_) = [p for p in entry_points(group=GROUP) if p.name == name]
    distribution = point.dist
    if distribution is None or distribution.metadata["Name"].lower().replace("_", "-") in OURS:
        return False
    drives = any(p.group.startswith("ciliate.") and p.group not in _NO_DRIVERS for p in distribution.entry_points)
    hooks = {name for name in dir(plugin) if name.startswith("ciliate_")}
    return not drives and not plugin.needs_same_process and hooks <= DECLARATIONS


def plan_of(path: Path | None, flags: Iterable[str]) -> Plan:
    """The plan of a configuration; imports the enabled plugins. Raises ConfigError."""
    config = core_config(load_settings(path, flags))
    found: dict[str, type[Plugin]] = {}
    for name in config.plugins:
        try:
            found[name] = load_driver(GROUP, name)
        except Exception as error:  # a stranger's module may raise anything; its process will refuse it by name
            print(f"plugin {name} can't be imported: {type(error).__name__}: {error}", file=sys.stderr)
    return make_plan(config, found, [name for name, plugin in found.items() if is_third_party(name, plugin)])


def main() -> None:
    """Print the plan as JSON: `python -m ciliate_node.plan CONFIG-OR-- FLAG...`."""
    try:
        plan = plan_of(None if sys.argv[1] == "-" else Path(sys.argv[1]), sys.argv[2:])
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    sys.stdout.buffer.write(msgspec.json.encode(plan))


if __name__ == "__main__":
    main()
