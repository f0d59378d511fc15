"""Which of a cluster's operators leads: a Lease in the store, the same in any driver.

Not the kubernetes package's election: that one is threads and blocking calls against one API server. The protocol is
the same (client-go's), so that operators of either kind exclude each other: a holder renews the Lease; the others take
it when it has not changed for its duration by their own clock. A leader that could not renew in time stops before that.
"""

from __future__ import annotations

import asyncio
import datetime
import socket
import time
import uuid
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from ciliate.config import OperatorSection
from ciliate.store import AlreadyExistsError, ConflictError, Kind, NotFoundError, Object, Store, StoreError

log = structlog.get_logger("leadership")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases", True, has_status=False)
LOCK = "cilium-operator-resource-lock"
RESIGN_SECONDS = 2.0
Factory = Callable[[], Coroutine[Any, Any, None]]


class Leadership:
    """One candidate. `run` campaigns; what only a leader may do runs under `while_leading`."""

    def __init__(self, store: Store, settings: OperatorSection, namespace: str, candidate: str) -> None:
        self.candidate = candidate
        self.holder = ""  # as the Lease was last seen
        self.reason = "the Lease has not been read yet"  # why this process does not lead; empty: it does
        self._store = store
        self._settings = settings
        self._namespace = namespace
        self._led, self._unled = asyncio.Event(), asyncio.Event()
        self._unled.set()
        self._deadline = 0.0
        self._seen: object = None
        self._seen_at = 0.0

    @property
    def leading(self) -> bool:
        """Whether this process leads now."""
        return self._led.is_set()

    async def while_leading(self, factory: Factory) -> None:
        """Run a coroutine function whenever this process leads, until it ends; cancelled when leadership is lost."""
        while True:
            await self._led.wait()
            work = asyncio.ensure_future(factory())
            lost = asyncio.ensure_future(self._unled.wait())
            try:
                await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    return work.result()
            finally:
                lost.cancel()
                work.cancel()
                await asyncio.gather(work, lost, return_exceptions=True)

    async def run(self) -> None:
        """Campaign, renew, and campaign again, for ever. What is held is given back at the end."""
        try:
            while True:
                await self._attempt()
                await asyncio.sleep(self._settings.leader_election_retry_period)
        finally:
            if self.leading:
                self._step_down("this process ends")
                with suppress(StoreError, TimeoutError):
                    async with asyncio.timeout(RESIGN_SECONDS):
                        await self._resign()

    async def _attempt(self) -> None:
        """Renew or take the Lease, if that can be; stop leading in time if it can't."""
        began = time.monotonic()
        limit = self._deadline if self.leading else began + self._settings.leader_election_renew_deadline
        try:
            async with asyncio.timeout(max(0.0, limit - began)):
                lost = await self._take()
        except (StoreError, TimeoutError) as error:
            said = str(error) or "the store does not answer"
            if self.leading and time.monotonic() < limit - self._settings.leader_election_retry_period:
                log.warning("leadership not renewed", reason=said)
            else:
                self._step_down(f"Lease {self._namespace}/{LOCK} can't be renewed: {said}")
            return
        if lost:
            self._step_down(lost)
            return
        self._deadline = began + self._settings.leader_election_renew_deadline
        if not self.leading:
            log.info("leads", candidate=self.candidate)
            self.reason = ""
            self._unled.clear()
            self._led.set()

    def _step_down(self, reason: str) -> None:
        if self.leading:
            log.warning("leads no more", candidate=self.candidate, reason=reason)
        self.reason = reason
        self._led.clear()
        self._unled.set()

    async def _take(self) -> str:
        """Write the Lease; why it is somebody else's, empty: it is ours. Raises StoreError."""
        try:
            lease = await self._store.get(LEASE, LOCK, self._namespace)
        except NotFoundError:
            metadata = {"name": LOCK, "namespace": self._namespace}
            new = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata}
            with suppress(AlreadyExistsError):
                await self._store.create({**new, "spec": self._spec({})})
                self.holder = self.candidate
                return ""
            return "another operator was faster"
        spec = as_spec(lease)
        self.holder = str(spec.get("holderIdentity") or "")
        if self.holder not in ("", self.candidate) and not self._expired(spec):
            return f"{self.holder} leads"
        try:
            await self._store.update({**lease, "spec": self._spec(spec)})
        except ConflictError:
            if self.leading:
                raise  # somebody wrote to it meanwhile: the next look tells who
            return "another operator was faster"
        self.holder = self.candidate
        return ""

    def _expired(self, spec: dict[str, Any]) -> bool:
        """Whether a Lease of somebody else has not changed for its duration, by this machine's clock."""
        seen = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        now = time.monotonic()
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        duration = spec.get("leaseDurationSeconds")
        if not isinstance(duration, int):
            duration = self._settings.leader_election_lease_duration
        return now - self._seen_at >= duration

    def _spec(self, old: dict[str, Any]) -> dict[str, Any]:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = old.get("holderIdentity") == self.candidate
        transitions = old.get("leaseTransitions")
        transitions = transitions if isinstance(transitions, int) else 0
        return {
            "holderIdentity": self.candidate,
            "leaseDurationSeconds": max(1, round(self._settings.leader_election_lease_duration)),
            "acquireTime": old.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": transitions if mine or not old else transitions + 1,
        }

    async def _resign(self) -> None:
        lease: Object = await self._store.get(LEASE, LOCK, self._namespace)
        spec = as_spec(lease)
        if spec.get("holderIdentity") == self.candidate:
            await self._store.update({**lease, "spec": {**spec, "holderIdentity": ""}})


def as_spec(lease: Object) -> dict[str, Any]:
    """A Lease's spec; empty if somebody has edited it into something else."""
    spec = lease.get("spec")
    return spec if isinstance(spec, dict) else {}


def candidate(run_dir: Path, process: str) -> str:
    """This process's name as a candidate, the same after a restart: a killed leader takes its own Lease back at once.

    No two live processes have the same, since a process's socket in run_dir has one owner.
    """
    file = run_dir / f"{process}.candidate"
    if not file.exists() or not file.read_text().strip():
        file.write_text(f"{socket.gethostname()}_{uuid.uuid4()}\n")
    return file.read_text().strip()
