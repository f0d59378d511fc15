"""50,000 objects at start: all of them are had, nobody is held up, and they are not all in memory at once."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from ciliate.store import Kind, follow
from ciliate_kubernetes.store.driver import KubernetesStore

from tests.contracts.store import KINDS, WIDGET
from tests.go.build import reason_not_to_build
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.filling import fill
from tests.kubernetes.programs import etcd, reason_not_to_run
from tests.kubernetes.store.crds import crd, is_established
from tests.kubernetes.store.turns import measured

COUNT = 50_000


def objects() -> Iterator[tuple[Kind, dict[str, Any]]]:
    """Widgets of a kilobyte each."""
    for number in range(COUNT):
        labels = {f"label-{n}": f"a value of some length, {n}" for n in range(8)}
        meta = {"name": f"w{number}", "namespace": f"space-{number % 100}", "labels": {"app": f"app-{number % 50}"}}
        yield WIDGET, {"metadata": meta, "spec": {"size": number, "more": labels, "tags": ["x" * 100, "y" * 100]}}


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane of this module's own; it can stream lists if Go can build its etcd."""
    if reason := reason_not_to_run(nodes=False):
        pytest.skip(reason)
    plane = ControlPlane() if reason_not_to_build("etcd") else ControlPlane(etcd=str(etcd()))
    try:
        plane.start()
        plane.kubectl.apply(crd(WIDGET))
        plane.kubectl.wait("crd", "crd", "widgets.tests.ciliate.io", condition=is_established)
        fill(plane, objects())
        yield plane
    finally:
        plane.close()


@pytest.fixture(params=["pages", "stream"])
async def store(request: pytest.FixtureRequest, plane: ControlPlane) -> AsyncIterator[KubernetesStore]:
    """A store full of widgets."""
    if request.param == "stream" and (reason := reason_not_to_build("etcd")):
        pytest.skip(reason)
    options = {"kubeconfig": str(plane.kubeconfig), "streaming_lists": request.param == "stream"}
    store = KubernetesStore(options, KINDS)
    yield store
    await store.close()


def resident() -> float:
    """Megabytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@pytest.mark.timeout(300)
async def test_50000_objects_are_listed_in_pieces_and_hold_nobody_up(store: KubernetesStore) -> None:
    await store.list(WIDGET, "none")  # what is imported and connected once
    gc.collect()
    gc.freeze()
    before, began = resident(), time.monotonic()
    sizes: list[int] = []
    most = 0.0
    with measured() as turns:
        async with aclosing(follow(store, WIDGET.only("spec.size"))) as batches:  # type: ignore[type-var]
            async for changes in batches:
                sizes.append(len(changes.upserts))
                most = max(most, resident() - before)
                if changes.complete:
                    break
    took = time.monotonic() - began
    gc.unfreeze()
    p99 = turns.quantile(0.99)
    print(
        f"{took:.1f} s; the loop's turns: p99 {1e3 * p99:.1f} ms, longest {1e3 * turns.longest:.0f} ms; {most:.0f} MB"
    )
    assert sum(sizes) == COUNT and max(sizes) <= 500
    assert p99 < 0.012
    assert turns.longest < 0.1, "but for the collector, no turn is long"
    assert most < 60
    assert took < 60
