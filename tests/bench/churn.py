"""Pods that come, change and go on other nodes: `python -m tests.bench.churn KUBECONFIG SECONDS RATE`."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from typing import Any

from ciliate.model.kinds import CILIUM_ENDPOINT, POD
from ciliate.store import Kind, NotFoundError
from ciliate_kubernetes.store.driver import KubernetesStore

from tests.kubernetes.population import Population


async def main(kubeconfig: str, seconds: float, rate: float) -> None:
    """Make changes at a steady rate."""
    population = Population()
    store = KubernetesStore({"kubeconfig": kubeconfig}, ())
    began = time.monotonic()
    others = [number for number in range(population.pods) if number % population.nodes]
    for count in range(int(seconds * rate)):
        await change(store, population, others[count * 37 % len(others)], count)
        await asyncio.sleep(max(0.0, began + (count + 1) / rate - time.monotonic()))
    await store.close()


async def change(store: KubernetesStore, population: Population, number: int, count: int) -> None:
    """One pod's change: it is made anew, or gets other labels and so another identity, or its Pod alone changes."""
    pod, endpoint = population.pod(number), population.endpoint(number)
    meta = {key: pod["metadata"][key] for key in ("name", "namespace")}
    if count % 4 == 0:
        for kind, obj in ((CILIUM_ENDPOINT, endpoint), (POD, None)):
            with suppress(NotFoundError):
                await store.delete(kind, **meta)
            if obj is not None:
                await store.create(_whole(kind, obj))
        return
    with suppress(NotFoundError):  # deleted before
        await store.patch(POD, {"metadata": {**meta, "annotations": {"example/changed": str(count)}}})
    if count % 4 != 1:
        identity = {**endpoint["status"]["identity"], "id": 1000 + count % 500}
        await store.patch(CILIUM_ENDPOINT, {"metadata": meta, "status": {**endpoint["status"], "identity": identity}})


def _whole(kind: Kind, obj: dict[str, Any]) -> dict[str, Any]:
    return {**obj, "apiVersion": kind.api_version, "kind": kind.kind}


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
