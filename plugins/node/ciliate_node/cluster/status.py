"""`ciliate status`: how a cluster fares."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer
from ciliate.api.routes import ApiError
from ciliate.cli.cluster import NameOption, find_cluster
from ciliate.cli.dispatch import CommandError
from ciliate.cli.report import Component, Problem, Report
from ciliate.store import StoreError

_EVERY = 2.0
_PATIENCE = 10.0
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def status(
    name: NameOption = "lab",
    wait: Annotated[bool, typer.Option("--wait", help="Until all is well.")] = False,
    wait_duration: Annotated[str, typer.Option("--wait-duration", help="How long at most, as 90s or 5m.")] = "5m",
    ignore_warnings: Annotated[bool, typer.Option("--ignore-warnings", help="Don't wait for their end.")] = False,
    output: Annotated[str, typer.Option("-o", "--output", help="summary or json.")] = "summary",
) -> None:
    """Say how a cluster fares, and what is wrong; exit with 1 if something is."""
    if output not in ("summary", "json"):
        raise CommandError(f"-o {output}: use summary or json")
    limit = seconds(wait_duration)
    cluster = find_cluster(name)
    began, told = time.monotonic(), False
    while True:
        report = _report(cluster.report, cluster.name)
        spent = time.monotonic() - began
        well = not (report.errors() if ignore_warnings or not wait else report.problems)
        if well or not wait or spent > limit:
            break
        if spent > _PATIENCE and not told and (told := True):
            print(f"waiting for cluster {report.cluster}: {_first(report)}", file=sys.stderr, flush=True)
        time.sleep(min(_EVERY, max(0.0, limit - spent)) or 0.1)
    print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() if output == "json" else render(report))
    if report.errors() or (wait and not well):
        raise typer.Exit(1)


def _report(make: object, name: str) -> Report:
    """A report; one of nothing but an error where the cluster does not answer."""
    try:
        made: Report = make()  # type: ignore[operator]
    except (ApiError, StoreError) as error:
        return Report(cluster=name, problems=[Problem(component="cluster", where=name, text=str(error))])
    return made


def _first(report: Report) -> str:
    problem = report.problems[0]
    return f"{problem.component} ({problem.where}): {problem.text}"


def seconds(text: str) -> float:
    """A duration as 90, 90s, 5m, 1h. Raises CommandError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not found:
        raise CommandError(f"--wait-duration {text!r}: must be a number with s, m or h")
    return float(found[1]) * _UNITS.get(found[2], 1.0)


def render(report: Report) -> str:
    """The report as text."""
    blocks = [
        [(f"{c.name.capitalize()}:", _state(report, c)) for c in report.components],
        [(c.workload or c.name, _counts(c)) for c in report.components],
        [(f"{c.name}", ", ".join(f"{v}: {n}" for v, n in sorted(c.versions.items()))) for c in report.components],
    ]
    lines = [f"Cluster {report.cluster}"]
    for title, block in zip(("", "", "Versions:"), blocks, strict=True):
        lines += ["", *([title] if title else []), *_aligned(block)] if block else []
    if report.pods is not None:
        lines += ["", f"Cluster Pods: {report.pods[0]}/{report.pods[1]} managed by Ciliate"]
    for level in ("error", "warning"):
        found = [p for p in report.problems if p.level == level]
        if found:
            lines += ["", f"{level.capitalize()}s:"]
            lines += _aligned([(p.component, p.where, p.text) for p in found])
    return "\n".join(lines)


def _state(report: Report, component: Component) -> str:
    if errors := len(report.errors(component.name)):
        return f"{errors} error{'s' * (errors > 1)}"
    warnings = sum(p.component == component.name for p in report.problems)
    return f"{warnings} warning{'s' * (warnings > 1)}" if warnings else "OK"


def _counts(component: Component) -> str:
    c = component
    text = f"Desired: {c.desired}, Ready: {c.ready}/{c.desired}, Available: {c.available}/{c.desired}"
    if missing := c.desired - c.available:
        text += f", Unavailable: {missing}"
    return text + "".join(f", {phase}: {count}" for phase, count in sorted(c.phases.items()) if phase != "Running")


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
