"""How a cluster fares: its components, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ciliate.api.client import Client
from ciliate.api.routes import ApiError
from ciliate.directory import cards

_TIMEOUT = 5.0


class Component(msgspec.Struct, kw_only=True):
    """Processes of one kind."""

    name: str  # agent, operator, hubble
    workload: str = ""  # DaemonSet ciliate
    desired: int = 0
    ready: int = 0
    available: int = 0
    phases: dict[str, int] = {}  # pods by phase
    versions: dict[str, int] = {}  # images, or versions, and how many run each


class Problem(msgspec.Struct, kw_only=True):
    """Something that is not as it should be."""

    component: str
    where: str  # a pod, or a node and its process
    text: str
    level: str = "error"  # or warning


class Report(msgspec.Struct, kw_only=True):
    """All of a cluster. It is well if no problem is an error."""

    cluster: str
    components: list[Component] = []
    problems: list[Problem] = []
    pods: tuple[int, int] | None = None  # pods with an endpoint, and pods that should have one

    def errors(self, component: str = "") -> list[Problem]:
        """Problems that are errors, of one component or all."""
        return [p for p in self.problems if p.level == "error" and component in ("", p.component)]


def report_nodes(cluster: str, run_dirs: Mapping[str, Path]) -> Report:
    """A report on nodes of this machine, by what each of their processes says of itself."""
    report = Report(cluster=cluster)
    found: dict[str, Component] = {}
    for node, run_dir in run_dirs.items():
        known = cards(run_dir)
        if not known:
            report.problems.append(Problem(component="agent", where=node, text=f"no process has run in {run_dir}"))
        for card in sorted(known, key=lambda card: (card.process != "agent", card.process)):
            component = found.setdefault(card.process, Component(name=card.process))
            component.desired += 1
            component.versions[card.version] = component.versions.get(card.version, 0) + 1
            where = f"{node}/{card.process}"
            try:
                with Client(card.socket, _TIMEOUT) as client:
                    status = client.get("/status")
            except ApiError as error:
                report.problems.append(Problem(component=card.process, where=where, text=str(error)))
                continue
            component.available += 1
            component.ready += bool(status["ready"])
            report.problems += problems_of(card.process, where, status)
    report.components = list(found.values())
    return report


def problems_of(component: str, where: str, status: Mapping[str, Any]) -> list[Problem]:
    """What a process says is wrong (the answer of its route /status); by which it is degraded only, is a warning."""
    return [
        Problem(component=component, where=where, text=f"{plugin}: {reason}", level=level)
        for level, kind in (("error", "reasons"), ("warning", "degraded"))
        for plugin, reasons in status.get(kind, {}).items()
        for reason in reasons
    ]
