"""The operators' election, on a real store: one leads at a time, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ciliate.config import ConfigError, OperatorSection, Settings
from ciliate.leadership import LEASE, LOCK, Leadership, candidate
from ciliate.store import Object, UnavailableError
from ciliate_store_local.driver import LocalStore

QUICK = OperatorSection(
    leader_election_lease_duration=1.0, leader_election_renew_deadline=0.6, leader_election_retry_period=0.05
)


class Candidate:
    """One operator's part: it campaigns, and notes when its work began and ended."""

    def __init__(self, store: LocalStore, name: str, at_work: list[str]) -> None:
        self.leadership = Leadership(store, QUICK, "kube-system", name)
        self.at_work = at_work
        self.campaign = asyncio.create_task(self.leadership.run())
        self.work = asyncio.create_task(self.leadership.while_leading(self._work))

    async def _work(self) -> None:
        self.at_work.append(self.leadership.candidate)
        try:
            await asyncio.Event().wait()
        finally:
            self.at_work.remove(self.leadership.candidate)

    async def end(self, killed: bool = False) -> None:
        """Stop it, or (killed) have it never give its Lease back."""
        if killed:
            self.leadership._led.clear()
        for task in (self.work, self.campaign):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class Outage(LocalStore):
    """A store that can be cut off from one process."""

    cut = False

    async def get(self, *arguments: Any) -> Object:
        if self.cut:
            raise UnavailableError("cut off")
        return await super().get(*arguments)

    async def update(self, obj: Object) -> Object:
        if self.cut:
            raise UnavailableError("cut off")
        return await super().update(obj)


async def until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def opened(path: Path, kind: type[LocalStore] = LocalStore) -> AsyncIterator[LocalStore]:
    store = kind({"path": str(path)}, ())
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    """One store."""
    async with opened(tmp_path / "store.db") as found:
        yield found


async def lease_of(store: LocalStore) -> Object:
    return await store.get(LEASE, LOCK, "kube-system")


async def test_one_of_several_leads_and_the_next_follows_at_once_when_it_ends(store: LocalStore) -> None:
    at_work: list[str] = []
    candidates = [Candidate(store, name, at_work) for name in ("a", "b", "c")]
    await until(lambda: len(at_work) == 1)
    first = next(c for c in candidates if c.leadership.leading)
    spec = (await lease_of(store))["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == (at_work[0], 1, 0)
    others = [c for c in candidates if c is not first]
    await until(lambda: all(c.leadership.reason == f"{at_work[0]} leads" for c in others))
    began = asyncio.get_running_loop().time()
    await first.end()
    await until(lambda: len(at_work) == 1)
    assert asyncio.get_running_loop().time() - began < 0.9  # not a whole lease
    assert (await lease_of(store))["spec"]["leaseTransitions"] == 1
    for one in others:
        await one.end()


async def test_a_killed_leader_is_followed_after_its_lease_and_never_before(store: LocalStore) -> None:
    at_work: list[str] = []
    first = Candidate(store, "a", at_work)
    await until(lambda: at_work == ["a"])
    second = Candidate(store, "b", at_work)
    await until(lambda: second.leadership.reason == "a leads")
    began = asyncio.get_running_loop().time()
    await first.end(killed=True)
    await until(lambda: at_work == ["b"])
    assert asyncio.get_running_loop().time() - began > 0.8
    await second.end()


async def test_a_restarted_leader_takes_its_own_lease_back_at_once(store: LocalStore, tmp_path: Path) -> None:
    at_work: list[str] = []
    name = candidate(tmp_path, "operator")
    assert candidate(tmp_path, "operator") == name
    first = Candidate(store, name, at_work)
    await until(lambda: bool(at_work))
    await first.end(killed=True)
    began = asyncio.get_running_loop().time()
    again = Candidate(store, candidate(tmp_path, "operator"), at_work)
    await until(lambda: bool(at_work))
    assert asyncio.get_running_loop().time() - began < 0.5
    await again.end()


async def test_a_leader_that_is_cut_off_stops_before_another_begins(store: LocalStore, tmp_path: Path) -> None:
    at_work: list[str] = []
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(at_work))
            await asyncio.sleep(0)

    async with opened(tmp_path / "store.db", Outage) as other:
        assert isinstance(other, Outage)
        first = Candidate(other, "a", at_work)
        await until(lambda: at_work == ["a"])
        second = Candidate(store, "b", at_work)
        watching = asyncio.create_task(watch())
        other.cut = True
        await until(lambda: at_work == ["b"])
        assert "cut off" in first.leadership.reason
        other.cut = False
        await until(lambda: first.leadership.reason == "b leads")
        assert (at_work, most) == (["b"], 1)
        watching.cancel()
        await first.end()
    await second.end()


@pytest.mark.parametrize(
    "spec",
    [
        {"holderIdentity": "nobody", "leaseDurationSeconds": 1, "renewTime": "yesterday"},
        {"holderIdentity": "nobody", "leaseDurationSeconds": "long", "leaseTransitions": "many"},
        {},
        "nonsense",
    ],
)
async def test_a_lease_edited_into_nonsense_is_taken_once_it_is_old(store: LocalStore, spec: Any) -> None:
    metadata = {"name": LOCK, "namespace": "kube-system"}
    await store.create({"apiVersion": LEASE.api_version, "kind": "Lease", "metadata": metadata, "spec": spec})
    at_work: list[str] = []
    one = Candidate(store, "a", at_work)
    await until(lambda: at_work == ["a"])
    lease = await lease_of(store)
    await store.update({**lease, "spec": {**lease["spec"], "holderIdentity": "somebody"}})
    await until(lambda: not at_work)
    assert one.leadership.reason == "somebody leads"
    await store.delete(LEASE, LOCK, "kube-system")
    await until(lambda: at_work == ["a"])
    await one.end()


def test_times_that_let_two_lead_are_refused() -> None:
    settings = Settings()
    settings.set("operator.leader_election_lease_duration", 10, "test")
    with pytest.raises(ConfigError, match="must be less than"):
        settings.section("operator", OperatorSection)
