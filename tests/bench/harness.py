"""Pairs, intervals and reports: how two paths are compared on a machine that is never quiet.

Every measurement of a variant is preceded at once by one of the base (A B A B), the variants in a new order each round;
a figure is the median over rounds of what one pair gives, with the 95 % bootstrap interval of that median. Rates are by
the clock in full mode. In quick mode, which must work beside other work, they are by processor time (Sample.cpu_rate).
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from tests.bench import build, settings
from tests.bench.measure import Bench, Sample, Workload, describe
from tests.bench.settings import BUDGETS, Sense
from tests.bench.spaces import Link

Floats = npt.NDArray[np.float64]
RESULTS = build.BUILD / "results"
LEAST_ADDED_US = 0.05
"""Less than this cannot be told from nothing, and is not divided by."""


class Figure(msgspec.Struct, frozen=True):
    """A median and its 95 % interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interval(statistic: Callable[..., Floats], *columns: Floats) -> Figure:
    """Bootstrap a statistic of paired columns: rows are drawn together. `statistic` works along the last axis."""
    generator = np.random.default_rng(settings.SEED)
    rows = generator.integers(0, len(columns[0]), (settings.RESAMPLES, len(columns[0])))
    drawn = statistic(*(column[rows] for column in columns))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Figure(float(statistic(*columns)), float(low), float(high))


def median_interval(values: Floats) -> Figure:
    """The median of values and its interval."""
    return interval(lambda column: np.median(column, axis=-1), values)


class Gate(msgspec.Struct, frozen=True):
    """A budget, what was measured against it, and whether it holds. `judged` is the end of the interval that counts."""

    budget: str
    limit: float
    sense: str
    figure: Figure
    judged: float
    holds: bool

    def __str__(self) -> str:
        word = "holds" if self.holds else "MISSED"
        return f"{self.budget}: {self.figure}; {self.judged:.3f} {self.sense} {self.limit:.3f} {word}"


def gate(budget: str, figure: Figure) -> Gate:
    """Hold a figure against a budget: by the unfavourable end of its interval in full mode, by the other in quick.

    So full says that a budget is surely kept, and quick fails only what surely misses it.
    """
    chosen = BUDGETS[budget]
    full = settings.plan().full
    at_least = chosen.sense is Sense.AT_LEAST
    limit = chosen.limit if full else chosen.quick_limit()
    judged = figure.low if at_least is full else figure.high
    holds = judged >= limit if at_least else judged <= limit
    return Gate(budget, limit, chosen.sense.value, figure, judged, holds)


class Row(msgspec.Struct, frozen=True):
    """One variant under one workload, against its base. Rates are medians, a second; `added_us` is of one operation.

    `ratio` and `added_us` are what gates look at; `clock_ratio` is always by the clock.
    """

    workload: str
    variant: str
    base: str
    pairs: int
    rate: float
    base_rate: float
    p99_us: float
    ratio: Figure
    added_us: Figure
    clock_ratio: Figure


class Report(msgspec.Struct):
    """What one test measured; written to build/bench/results/NAME.json."""

    name: str
    machine: dict[str, str]
    when: str
    full: bool
    rows: list[Row] = []
    figures: dict[str, Figure] = {}
    notes: list[str] = []
    gates: list[Gate] = []

    def save(self) -> Path:
        """Write it; the path."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))
        return path

    def check(self) -> None:
        """Save, then fail with every budget that was missed."""
        self.save()
        missed = [str(one) for one in self.gates if not one.holds]
        if missed:
            raise AssertionError(f"{self.name}: {len(missed)} budget(s) missed\n" + "\n".join(missed))


def new_report(name: str) -> Report:
    """An empty report of now, on this machine."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Report(name, describe(), now, settings.plan().full, [], {}, [], [])


@dataclass(frozen=True)
class Comparison:
    """Samples of a base and of variants, paired: `base[v][i]` was taken just before `variants[v][i]`, in round i."""

    workload: Workload
    base_name: str
    base: dict[str, list[Sample]]
    variants: dict[str, list[Sample]]
    by_clock: bool

    def _rates(self, samples: list[Sample], by_clock: bool) -> Floats:
        return np.array([sample.rate if by_clock else sample.cpu_rate for sample in samples])

    def _shares(self, variant: str, by_clock: bool) -> Floats:
        return self._rates(self.variants[variant], by_clock) / self._rates(self.base[variant], by_clock)

    def ratio(self, variant: str) -> Figure:
        """The variant's rate as a share of the base's."""
        return median_interval(self._shares(variant, self.by_clock))

    def ratio_between(self, variant: str, other: str) -> Figure:
        """One variant's share of the base over another's, by round."""
        return median_interval(self._shares(variant, self.by_clock) / self._shares(other, self.by_clock))

    def added(self, variant: str) -> Floats:
        """Microseconds that the variant adds to one operation, by round."""
        ours = self._rates(self.variants[variant], self.by_clock)
        theirs = self._rates(self.base[variant], self.by_clock)
        return np.asarray(1e6 / ours - 1e6 / theirs)

    def added_times(self, variant: str, other: str) -> Figure:
        """How many times what the other adds, the variant adds: the ratio of the medians."""

        def times(ours: Floats, theirs: Floats) -> Floats:
            return np.asarray(np.median(ours, axis=-1) / np.maximum(np.median(theirs, axis=-1), LEAST_ADDED_US))

        return interval(times, self.added(variant), self.added(other))

    def rows(self) -> list[Row]:
        """A report's rows, one a variant."""
        return [self._row(variant) for variant in self.variants]

    def _row(self, variant: str) -> Row:
        samples = self.variants[variant]
        return Row(
            workload=self.workload.name,
            variant=variant,
            base=self.base_name,
            pairs=len(samples),
            rate=float(np.median(self._rates(samples, True))),
            base_rate=float(np.median(self._rates(self.base[variant], True))),
            p99_us=float(np.median([sample.p99_us for sample in samples])),
            ratio=self.ratio(variant),
            added_us=median_interval(self.added(variant)),
            clock_ratio=median_interval(self._shares(variant, True)),
        )


def compare(bench: Bench, base: Link, variants: Sequence[Link], workload: Workload, times: int = 1) -> Comparison:
    """Measure all variants against the base by the plan of CILIATE_BENCH, with so many times its pairs."""
    plan = settings.plan()
    order = random.Random(settings.SEED)
    taken: dict[str, list[Sample]] = {link.name: [] for link in variants}
    before: dict[str, list[Sample]] = {link.name: [] for link in variants}
    for link in (base, *variants):
        bench.sample(link, workload, plan.warm_up)
    spread = workload.ports > 1
    pairs, seconds = (plan.spread_pairs, plan.spread_seconds) if spread else (plan.pairs, plan.seconds)
    for _ in range(times * pairs):
        for link in order.sample(list(variants), len(variants)):
            before[link.name].append(bench.sample(base, workload, seconds))
            taken[link.name].append(bench.sample(link, workload, seconds))
    return Comparison(workload, base.name, before, taken, plan.full)
