"""CNI ADD and DEL as the runtime sees them: a process of the plugin for each, against `ptp` with `host-local`."""

from __future__ import annotations

import re
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.bench import cniplugin, harness, settings, spaces
from tests.bench.cniplugin import Calls, Container, Plugin
from tests.bench.harness import Figure, Floats

if TYPE_CHECKING:
    from tests.bench.lab import Lab

PERCENTILES = (50, 95, 99)
LAG_EVERY = 0.002
EMPTY_SECONDS = 20


def wait_empty(containers: Sequence[Container]) -> None:
    """Wait until the pods' interfaces are gone: a DEL may answer before, for a runtime removes the namespace anyway."""
    end = time.monotonic() + EMPTY_SECONDS
    for container in containers:
        look = ["nsenter", f"--net={container.netns}", "test", "-e", f"/proc/sys/net/ipv4/conf/{cniplugin.INTERFACE}"]
        while subprocess.run(look, check=False).returncode == 0:
            assert time.monotonic() < end, f"{container.netns} still has its interface {EMPTY_SECONDS} s after DEL"
            time.sleep(0.005)


@contextmanager
def containers(made: spaces.Spaces, count: int, name: str) -> Iterator[list[Container]]:
    """Namespaces with fresh container ids, as a runtime has made them before it calls."""
    names = made.add(*(f"{name}{i}" for i in range(count)))
    for one in names:
        cniplugin.no_duplicate_detection(one)
    yield [Container(uuid.uuid4().hex, spaces.NETNS / one) for one in names]
    made.remove(names)


@pytest.fixture(scope="module")
def reference(made: spaces.Spaces, tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[int, ...]], Plugin]:
    """The reference plugin on a host of its own, for the families given."""
    known: dict[tuple[int, ...], Plugin] = {}

    def get(families: tuple[int, ...]) -> Plugin:
        if families not in known:
            (host,) = made.add(f"cni-h{len(known)}")
            cniplugin.no_duplicate_detection(host)
            known[families] = cniplugin.ptp(host, tmp_path_factory.mktemp("ipam"), 220 + len(known), families)
        return known[families]

    return get


Spent = dict[str, dict[str, Floats]]  # plugin, command, milliseconds


def _took(calls: dict[str, dict[str, list[Calls]]]) -> Spent:
    return {
        name: {command: np.concatenate([one.took for one in batches]) for command, batches in commands.items()}
        for name, commands in calls.items()
    }


def one_after_another(made: spaces.Spaces, plugins: Sequence[Plugin]) -> Spent:
    """ADD and DEL containers in chunks, the plugins in turn; DEL of a chunk follows its ADDs."""
    spent: dict[str, dict[str, list[Calls]]] = {plugin.name: {"ADD": [], "DEL": []} for plugin in plugins}
    with containers(made, settings.CNI_CHUNK, "seq") as chunk:
        for number in range(settings.plan().cni_rounds + 1):
            for plugin in plugins[:: 1 if number % 2 else -1]:
                wait_empty(chunk)
                fresh = [Container(uuid.uuid4().hex, one.netns) for one in chunk]
                for command in ("ADD", "DEL"):
                    calls = plugin.call(command, fresh)
                    if number:  # the first round only warms up
                        spent[plugin.name][command].append(calls)
    return _took(spent)


def at_once(made: spaces.Spaces, plugins: Sequence[Plugin]) -> tuple[Spent, dict[str, float]]:
    """The same with all ADDs begun at once; also the time until the last had ended (median of bursts), by plugin."""
    plan = settings.plan()
    calls: dict[str, dict[str, list[Calls]]] = {plugin.name: {"ADD": [], "DEL": []} for plugin in plugins}
    with containers(made, plan.cni_at_once, "many") as many:
        for _ in range(plan.cni_bursts):
            for plugin in plugins:
                wait_empty(many)
                for command in ("ADD", "DEL"):
                    calls[plugin.name][command].append(plugin.call(command, many, at_once=len(many)))
    totals = {name: float(np.median([one.ended.max() for one in kinds["ADD"]])) for name, kinds in calls.items()}
    return _took(calls), totals


def ratio_of(percentile: int, ours: Floats, theirs: Floats) -> Figure:
    """One percentile of ours over the same of theirs; ADDs are not paired, so each side is drawn by itself."""
    generator = np.random.default_rng(settings.SEED)
    drawn = [
        np.percentile(side[generator.integers(0, len(side), (2000, len(side)))], percentile, axis=-1)
        for side in (ours, theirs)
    ]
    low, high = np.percentile(drawn[0] / drawn[1], [2.5, 97.5])
    exact = np.percentile(ours, percentile) / np.percentile(theirs, percentile)
    return Figure(float(exact), float(low), float(high))


def describe(report: harness.Report, title: str, spent: Spent) -> None:
    """Add percentiles to a report, in milliseconds."""
    for plugin, commands in spent.items():
        for command, took in commands.items():
            values = " / ".join(f"{value:.2f}" for value in np.percentile(took, PERCENTILES))
            report.notes.append(f"{title}, {plugin} {command}: p50 / p95 / p99 {values} ms, n = {len(took)}")


class LoopLag:
    """How long the agent's event loop lets a request wait: asks /status every 2 ms while ADDs go on."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.took: list[float] = []

    def _ask(self) -> None:
        with self._lab.client() as client:
            while not self._done.wait(LAG_EVERY):
                before = time.monotonic()
                client.get("/status")
                self.took.append((time.monotonic() - before) * 1000)

    def __enter__(self) -> LoopLag:
        self._before = self._buckets()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._after = self._buckets()

    def _buckets(self) -> dict[float, float]:
        with self._lab.client() as client:
            text = str(client.get("/metrics"))
        found = re.findall(r'^ciliate_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', text, re.MULTILINE)
        return {float(bound): float(count) for bound, count in found}

    def __str__(self) -> str:
        counts = {bound: self._after[bound] - self._before.get(bound, 0) for bound in sorted(self._after)}
        everything = max(counts.values(), default=0)
        worst = next((bound for bound, count in counts.items() if count >= everything), float("nan"))
        values = " / ".join(f"{value:.1f}" for value in np.percentile(self.took, [50, 99, 100]))
        return (
            f"answers of /status p50 / p99 / max {values} ms, n = {len(self.took)}; "
            f"the loop's own lag at most {worst * 1000:g} ms in {everything:g} samples"
        )


def test_what_the_reference_costs(made: spaces.Spaces, reference: Callable[[tuple[int, ...]], Plugin]) -> None:
    """No gate: the record of the machine."""
    report = harness.new_report("cni peers")
    plugins = [reference((4, 6)), reference((4,))]
    describe(report, "one after another", one_after_another(made, plugins))
    spent, totals = at_once(made, plugins)
    describe(report, f"{settings.plan().cni_at_once} at once", spent)
    report.notes += [f"all ADDs at once, {name}: {total:.0f} ms" for name, total in totals.items()]
    report.check()


@pytest.mark.parametrize("families", [(4, 6), (4,)], ids=["dual stack", "IPv4 only"])
def test_add_one_after_another(
    made: spaces.Spaces, reference: Callable[[tuple[int, ...]], Plugin], lab: Lab, families: tuple[int, ...]
) -> None:
    peer, ours = reference(families), lab.plugin()
    spent = one_after_another(made, [peer, ours])
    report = harness.new_report(f"cni one after another, of {peer.name}")
    describe(report, "one after another", spent)
    report.gates.append(
        harness.gate("cni add p50 of ptp", ratio_of(50, spent[ours.name]["ADD"], spent[peer.name]["ADD"]))
    )
    report.check()


@pytest.mark.parametrize("families", [(4, 6), (4,)], ids=["dual stack", "IPv4 only"])
def test_a_hundred_adds_at_once(
    made: spaces.Spaces, reference: Callable[[tuple[int, ...]], Plugin], lab: Lab, families: tuple[int, ...]
) -> None:
    peer, ours = reference(families), lab.plugin()
    report = harness.new_report(f"cni at once, of {peer.name}")
    with LoopLag(lab) as lag:
        spent, totals = at_once(made, [ours])
    theirs, their_totals = at_once(made, [peer])
    spent |= theirs
    describe(report, f"{settings.plan().cni_at_once} at once", spent)
    report.notes.append(f"until the last ADD had ended: {totals | their_totals} ms")
    report.notes.append(f"agent meanwhile: {lag}")
    report.gates.append(
        harness.gate("cni burst p99 of ptp", ratio_of(99, spent[ours.name]["ADD"], spent[peer.name]["ADD"]))
    )
    report.check()


def test_a_failed_add_is_told_in_the_plugins_own_words(
    reference: Callable[[tuple[int, ...]], Plugin], tmp_path: Path
) -> None:
    with pytest.raises(cniplugin.CniError, match="gone"):
        reference((4, 6)).call("ADD", [Container("x1", tmp_path / "gone")])
