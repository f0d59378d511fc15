"""The cluster's settings: a ConfigMap with a key a setting, as `ipam.mode`; checked before anything is changed."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ciliate.config import CORE_SECTIONS, ConfigError, Settings, load_settings
from ciliate.host import Host
from ciliate.loading import GROUP, load_driver
from ciliate.plugin import Plugin

CONFIG_MAP_NAME = "ciliate-config"
OPERATOR = "operator"
_ONCE_A_CLUSTER = ("relay",)
"""Processes that are neither the operator nor one of each node's."""


@dataclass(frozen=True)
class Checked:
    """Settings that are fit to be used."""

    values: dict[str, str]  # by dotted path, as YAML scalars or flow collections
    processes: dict[str, list[str]]  # of a node, the agent first; and of the operator
    notes: list[str]  # what can't be checked here, or is odd

    def digest(self, process: str) -> str:
        """Changes with what a process uses: sections of its plugins, and those of the core."""
        used = {*CORE_SECTIONS, *self.processes.get(process, ())}
        mine = sorted((key, value) for key, value in self.values.items() if key.partition(".")[0] in used)
        return hashlib.sha256(repr(mine).encode()).hexdigest()[:16]


def parse_flags(flags: Iterable[str]) -> dict[str, str]:
    """`--set section.key=value`, repeated. Raises ConfigError."""
    values: dict[str, str] = {}
    for flag in flags:
        key, separator, value = flag.partition("=")
        if not separator or not key:
            raise ConfigError(f"flag --set {flag}: must be section.key=value")
        values[key] = value
    return values


def check(values: Mapping[str, str]) -> Checked:
    """Read settings as processes will. Raises ConfigError: unknown keys, wrong types, plugins that must be together."""
    config = Host.load(_read(values), "agent", "*").config
    config.store.checked(load_driver("ciliate.store", config.store.driver).options)
    notes: list[str] = []
    found: dict[str, type[Plugin]] = {}
    for name in config.plugins:
        try:
            found[name] = load_driver(GROUP, name)
        except Exception as error:  # a stranger's module may raise anything; the image may have what is lacking here
            notes.append(f"plugin {name} can't be checked here: {type(error).__name__}: {error}")
    processes = _processes(config.plugins, found, config.processes)
    if elsewhere := [process for process in processes if process in _ONCE_A_CLUSTER]:
        raise ConfigError(
            f"plugin {processes[elsewhere[0]][0]} runs in a process {elsewhere[0]} that a cluster has once: it is not"
            " among what `ciliate install` makes; run it beside the cluster"
        )
    for process, names in processes.items():
        _refuse_split(process, names, found)
    return Checked(dict(values), processes, notes)


def _read(values: Mapping[str, str]) -> Settings:
    """As a process reads the mounted ConfigMap; origins name its keys."""
    with tempfile.TemporaryDirectory() as folder:
        for key, value in values.items():
            if "/" in key or not key:
                raise ConfigError(f"{key!r}: must be section.key")
            Path(folder, key).write_text(value)
        settings = load_settings(Path(folder), environment={})
    settings.origins = dict.fromkeys(settings.origins, f"configmap {CONFIG_MAP_NAME}")
    return settings


def _processes(
    plugins: list[str], found: Mapping[str, type[Plugin]], placed: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    """Which plugins take part in which process."""
    processes: dict[str, list[str]] = {"agent": [], OPERATOR: []}
    for name in plugins:
        roles = found[name].roles if name in found else ("agent",)
        if OPERATOR in roles:
            processes[OPERATOR].append(name)
        chosen = [process for process, names in placed.items() if name in names]
        for role in chosen or [role for role in roles if role != OPERATOR]:
            processes.setdefault(role, []).append(name)
    return {process: names for process, names in processes.items() if names or process in ("agent", OPERATOR)}


def _refuse_split(process: str, names: list[str], found: Mapping[str, type[Plugin]]) -> None:
    for name in names if process != OPERATOR else ():
        for need in found[name].needs_same_process if name in found else ():
            if need not in names:
                raise ConfigError(
                    f"plugin {name} needs {need} in its own process {process}: list {need} under `plugins`, and put"
                    " both in one process where `processes` places one of them"
                )
