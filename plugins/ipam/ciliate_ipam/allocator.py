"""Giving out addresses: the service `Ipam`, in memory, with one durable commit a call."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import msgspec
from ciliate.model.ipam import Address, Allocation, ExhaustedError, IpamError, NodeRange, NotReadyError, PodRange
from ciliate.tables.table import TableWriter

from ciliate_ipam.address_range import ROUTER_OWNER, AddressRange, Aging, node_range, ranges_of

_FORGOTTEN_AT_ONCE = 4


def uptime() -> float:
    """Seconds since the machine's start: nobody sets this clock, and every process sees the same."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Allocator:
    """See `ciliate.model.ipam.Ipam`. Addresses of the last life are in use until they are released."""

    def __init__(
        self,
        addresses: TableWriter[Address],
        node_ranges: TableWriter[NodeRange],
        commit: Callable[[], AbstractContextManager[None]],
        families: Iterable[int],
        reuse_delay: float,
        clock: Callable[[], float] = uptime,
    ) -> None:
        self._addresses = addresses
        self._node_ranges = node_ranges
        self._commit = commit
        self._families = tuple(families)
        self._delay = reuse_delay
        self._clock = clock
        self.reason = "The driver has not answered yet"
        """Why there is no range, for NotReadyError."""
        self._begin_rests_anew()
        rows = list(addresses.rows.values())
        self._ranges = sorted((AddressRange(row, rows) for row in node_ranges.rows.values()), key=AddressRange.order)
        self._leaving: set[str] = set()  # ranges that the driver has taken back while pods still have addresses in them
        self._aging = Aging(rows)
        self._attachments: dict[str, list[Address]] = {}
        for row in rows:
            if not row.released and row.attachment:
                self._attachments.setdefault(row.attachment, []).append(row)

    def _begin_rests_anew(self) -> None:
        """What was released at a time to come was so before the machine's last start, or by another clock."""
        now = self._clock()
        ahead = [row for row in self._addresses.rows.values() if row.released > now]
        if ahead:
            with self._durably("times of release"):
                self._addresses.put_all(msgspec.structs.replace(row, released=now) for row in ahead)

    def allocate(self, owner: str, attachment: str) -> Allocation:
        """See `Ipam.allocate`."""
        now = self._clock()
        held = self._attachments.get(attachment, [])
        missing = [family for family in self._families if not any(a.family == family for a in held)]
        new = [self._choose(family, owner, attachment, now) for family in missing]
        if new:
            with self._durably(f"address for {owner}"):
                self._addresses.put_all(new)
                self._forget(now)
            for row in new:
                for address_range in self._ranges:
                    address_range.use(row.address, owner)
            held = self._attachments[attachment] = held + new
        return _allocation(held)

    def claim(self, owner: str, attachment: str, allocation: Allocation) -> None:
        """See `Ipam.claim`."""
        pairs = [(4, allocation.ipv4), (6, allocation.ipv6)]
        rows = [Address(address=a, family=f, owner=owner, attachment=attachment) for f, a in pairs if a is not None]
        with self._durably(f"addresses of {owner}"):
            self._addresses.put_all(rows)
        for row in rows:
            for other in [
                key for key, held in self._attachments.items() if any(a.address == row.address for a in held)
            ]:
                del self._attachments[other]
            for address_range in self._ranges:
                address_range.use(row.address, owner)
        self._attachments[attachment] = rows

    def _choose(self, family: int, owner: str, attachment: str, now: float) -> Address:
        usable = [r for r in ranges_of(family, self._ranges) if r.row.cidr not in self._leaving]
        for desperate in (False, True):
            for address_range in usable:
                if address := address_range.candidate(now, self._delay, desperate):
                    return Address(address=address, family=family, owner=owner, attachment=attachment)
        if not usable:
            raise NotReadyError(
                f"no IPv{family} address for {owner}: this node has no IPv{family} range. {self.reason}"
            )
        state = "; ".join(r.describe() for r in usable)
        raise ExhaustedError(
            f"no IPv{family} address for {owner}: all are in use: {state}. Remove pods or give it a larger range"
        )

    def release(self, attachment: str) -> None:
        """See `Ipam.release`."""
        held = self._attachments.get(attachment)
        if held is None:
            return
        now = self._clock()
        with self._durably(f"release by {attachment}"):
            for row in held:
                self._addresses.put(
                    Address(
                        address=row.address, family=row.family, owner=row.owner, attachment=attachment, released=now
                    )
                )
            self._forget(now)
        del self._attachments[attachment]
        for row in held:
            for address_range in self._ranges:
                address_range.release(row.address, now)
            self._aging.add(row.address, now)
        self._drop_left_ranges()

    def _forget(self, now: float) -> None:
        """Let a few released rows go that have waited long enough; a reused one is not released any more."""
        for released, address in self._aging.due(now, self._delay, _FORGOTTEN_AT_ONCE):
            row = self._addresses.rows.get(address)
            if row is not None and row.released == released:
                self._addresses.delete(address)

    def _durably(self, what: str) -> AbstractContextManager[None]:
        return _Durably(self._commit(), what)

    def attachments(self) -> dict[str, Allocation]:
        """See `Ipam.attachments`."""
        return {attachment: _allocation(rows) for attachment, rows in self._attachments.items()}

    def ranges(self) -> list[NodeRange]:
        """See `Ipam.ranges`."""
        return [r.row for r in self._ranges]

    def adopt(self, given: Iterable[PodRange]) -> None:
        """Take over the driver's ranges; one that it no longer gives stays until it is empty. Raises IpamError."""
        wanted = {r.cidr: node_range(r) for r in given}
        rows = list(self._addresses.rows.values())
        known = {r.row.cidr for r in self._ranges}
        with self._durably("this node's ranges"):
            self._node_ranges.put_all(wanted.values())
            self._addresses.put_all(
                Address(address=row.router, family=row.family, owner=ROUTER_OWNER) for row in wanted.values()
            )
        self._ranges += [AddressRange(row, rows) for cidr, row in wanted.items() if cidr not in known]
        self._ranges.sort(key=AddressRange.order)
        self._leaving = {r.row.cidr for r in self._ranges} - set(wanted)
        self._drop_left_ranges()

    def _drop_left_ranges(self) -> None:
        for gone in [r for r in self._ranges if r.row.cidr in self._leaving and not r.used]:
            self._node_ranges.delete(gone.row.cidr)
            self._addresses.delete(gone.row.router)
            self._leaving.discard(gone.row.cidr)
            self._ranges.remove(gone)

    def usage(self) -> list[dict[str, str | int]]:
        """Every range with its numbers of addresses, for a status."""
        return [{"cidr": r.row.cidr, "pool": r.row.pool, "used": len(r.used), "size": r.size} for r in self._ranges]


class _Durably(AbstractContextManager[None]):
    """A commit whose failure is IPAM's error: nothing has been given out or taken back then."""

    def __init__(self, commit: AbstractContextManager[None], what: str) -> None:
        self._inner = commit
        self._what = what

    def __enter__(self) -> None:
        self._inner.__enter__()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._inner.__exit__(type(error) if error else None, error, None)
        except Exception as failure:
            if failure is error:
                raise
            raise IpamError(f"{self._what} can't be written down: {failure}") from failure


def _allocation(rows: Iterable[Address]) -> Allocation:
    by_family = {ipaddress.ip_address(row.address).version: row.address for row in rows}
    return Allocation(ipv4=by_family.get(4), ipv6=by_family.get(6))
