"""Pods that come and go all the time, each probed, and a ledger of who had which address when."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import Self

from ciliate.store import NotFoundError, Object, StoreError
from ciliate_lab.place import LabError
from ciliate_lab.pods import find_pod, pod_object, pod_record, remove_pod, run_pod

from tests.node.faults.steady import CLOSED_PORT, NAMESPACE, STREAM_PORT, Cast
from tests.node.labs import Lab, Place

PATIENCE = 60.0
"""Seconds that a pod may take to come or go: processes that it waits for are killed again and again."""
TRIES = 5
LIVE = 4
"""Pods that there are at once."""


@dataclass
class Tenure:
    """One pod's time with its addresses: from when it was Ready to when its deletion was asked for."""

    pod: str
    addresses: tuple[str, ...]
    since: float
    until: float = float("inf")


@dataclass
class Churn:
    """Runs in a thread of its own between `with` and its end; then there is no pod of it left."""

    lab: Lab
    cast: Cast
    seed: int
    tenures: list[Tenure] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # what must not have happened
    retried: list[str] = field(default_factory=list)  # why steps failed, as they may meanwhile, that were done again

    def __enter__(self) -> Self:
        self._ending = threading.Event()
        self._random = random.Random(self.seed)
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),), name="churn")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()

    async def _run(self) -> None:
        slots = (self._keep(slot) for slot in range(LIVE))
        try:
            await asyncio.gather(*slots)
        except Exception as error:  # told to the test, which is in another thread
            self.wrong.append(f"pods could not come and go: {type(error).__name__}: {error}")

    async def _keep(self, slot: int) -> None:
        """One pod after another."""
        count = 0
        while not self._ending.is_set():
            await self._live(f"churn-{slot}-{count}", friend=(slot + count) % 2 == 0)
            count += 1

    async def _live(self, name: str, friend: bool) -> None:
        wanted = pod_object(name, NAMESPACE, ["sleep", "inf"], labels=[f"app={'friend' if friend else 'stranger'}"])
        pod = await self._arrived(wanted)
        addresses = tuple(entry["ip"] for entry in pod["status"]["podIPs"])
        tenure = Tenure(name, addresses, time.monotonic())
        self.tenures.append(tenure)
        found, node = await find_pod(self.lab.place, name, NAMESPACE)
        place = Place(pod_record(found, node).netns)
        await asyncio.to_thread(self._probe, name, place, friend)
        await asyncio.sleep(self._random.uniform(0, 1))
        tenure.until = time.monotonic()
        await self._gone(name)

    async def _arrived(self, wanted: Object) -> Object:
        """Make a pod, anew if it takes too long: with bad luck what it needs is killed each time that it is tried."""
        for _ in range(TRIES):
            try:
                return await run_pod(self.lab.place, wanted, PATIENCE)
            except (StoreError, LabError) as error:
                self.retried.append(str(error))
                await self._gone(wanted["metadata"]["name"])
        raise LabError(f"{wanted['metadata']['name']} never became Ready: {self.retried[-1]}")

    async def _gone(self, name: str) -> None:
        deadline = time.monotonic() + TRIES * PATIENCE
        while True:
            try:
                await remove_pod(self.lab.place, name, NAMESPACE, PATIENCE)
            except NotFoundError:
                return
            except (StoreError, LabError) as error:
                self.retried.append(str(error))
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
            else:
                return

    def _probe(self, name: str, place: Place, friend: bool) -> None:
        """A new pod is judged rightly from its first packet on, whatever has just been killed."""
        for address in self.cast.server.addresses:
            for port in (CLOSED_PORT,) if friend else (STREAM_PORT, CLOSED_PORT):
                if place.connects(address, port, timeout=0.15):
                    self.wrong.append(f"{name} reached {address}:{port}, which is denied")
            if friend and not place.connects(address, STREAM_PORT, timeout=0.9):  # one lost SYN would take longer
                self.wrong.append(f"{name} did not reach {address}:{STREAM_PORT}, which is allowed")


def given_twice(tenures: list[Tenure]) -> list[str]:
    """Addresses that two pods had at once."""
    found = []
    for address, held in _by_address(tenures).items():
        for one, later in pairwise(held):
            if later.since < one.until:
                found.append(f"{address}: {one.pod} and {later.pod}")
    return found


def shortest_rest(tenures: list[Tenure]) -> float:
    """Seconds between a pod's going and the same address's next pod, the least of all; infinity: none came back."""
    pairs = [pair for held in _by_address(tenures).values() for pair in pairwise(held)]
    return min((later.since - earlier.until for earlier, later in pairs), default=float("inf"))


def _by_address(tenures: list[Tenure]) -> dict[str, list[Tenure]]:
    held: dict[str, list[Tenure]] = {}
    for tenure in sorted(tenures, key=lambda tenure: tenure.since):
        for address in tenure.addresses:
            held.setdefault(address, []).append(tenure)
    return held
