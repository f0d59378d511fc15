"""Results as markdown: `python -m tests.bench.report` prints what build/bench/results holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from tests.bench.harness import RESULTS, Report


def load(folder: Path = RESULTS, since: float = 0) -> list[Report]:
    """Every report of a folder that was written since a time (seconds since the epoch), by name."""
    paths = [path for path in sorted(folder.glob("*.json")) if path.stat().st_mtime >= since]
    return [msgspec.json.decode(path.read_bytes(), type=Report) for path in paths]


def markdown(reports: Iterable[Report]) -> Iterator[str]:
    """The lines of a page that shows reports."""
    for report in reports:
        kind = "full" if report.full else "quick: relaxed gates, by processor time"
        yield f"### {report.name} ({report.when}, {kind}; kernel {report.machine['kernel']}, {report.machine['cpu']})\n"
        if report.rows:
            yield "| workload | variant | a second | base | ratio | + µs | by the clock | p99 µs | pairs |"
            yield "|---|---|---|---|---|---|---|---|---|"
        for row in report.rows:
            yield (
                f"| {row.workload} | {row.variant} | {row.rate:,.0f} | {row.base} {row.base_rate:,.0f} | {row.ratio} | "
                f"{row.added_us.median:.2f} | {row.clock_ratio} | {row.p99_us:.1f} | {row.pairs} |"
            )
        if report.figures:
            yield "\n| figure | value |\n|---|---|"
        for name, figure in report.figures.items():
            yield f"| {name} | {figure} |"
        yield from ("", *(f"- {note}" for note in report.notes), *(f"- {one}" for one in report.gates), "")


if __name__ == "__main__":
    print("\n".join(markdown(load())))
