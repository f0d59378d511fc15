"""The addresses of one range: which are free, and which comes next."""

from __future__ import annotations

import ipaddress
from collections import Counter, deque
from collections.abc import Iterable, Iterator

from ciliate.model.base import IPNetwork
from ciliate.model.ipam import Address, NodeRange, PodRange

ROUTER_OWNER = "router"
_MANY_RELEASED = 65_536
"""From so many waiting addresses on, the oldest come before fresh ones: a large IPv6 range would remember for ever."""
_TOP_OWNERS = 5


def router_of(cidr: str) -> str:
    """The router's address of a range: its first usable one."""
    return str(ipaddress.ip_network(cidr)[1])


def node_range(pod_range: PodRange) -> NodeRange:
    """A driver's range as the node has it."""
    family = ipaddress.ip_network(pod_range.cidr).version
    return NodeRange(cidr=pod_range.cidr, family=family, router=router_of(pod_range.cidr), pool=pod_range.pool)


class AddressRange:
    """Addresses as numbers. The network's first and last are never used, the second is the router's.

    `candidate` chooses and changes nothing; `use` and `release` change, once the table has it.
    """

    def __init__(self, row: NodeRange, rows: Iterable[Address]) -> None:
        """rows: those of the table `addresses`; what is not in this range is ignored."""
        self.row = row
        network: IPNetwork = ipaddress.ip_network(row.cidr)
        self._class: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address] = type(network.network_address)
        self._network = int(network.network_address)
        self._next = self._network + 2
        self._last = int(network.broadcast_address) - 1
        self.used: dict[int, str] = {}
        """Number to owner."""
        self._released: dict[int, float] = {}
        """Number to time, oldest first."""
        mine = [(number, a) for a in rows if a.family == row.family and (number := self._number(a.address)) is not None]
        for number, address in sorted(mine, key=lambda pair: pair[1].released):
            if address.released:
                self._released[number] = address.released
            else:
                self.used[number] = address.owner

    def order(self) -> tuple[int, int]:
        """By family and address: the order in which ranges are filled, in every life the same."""
        return self.row.family, self._network

    @property
    def size(self) -> int:
        """How many addresses can be given to pods."""
        return self._last - self._network - 1

    def _number(self, address: str) -> int | None:
        number = int(ipaddress.ip_address(address))
        return number if self._network + 2 <= number <= self._last else None

    def candidate(self, now: float, delay: float, desperate: bool) -> str | None:
        """The next address; one released less than `delay` seconds ago only if `desperate`. None: there is none."""
        oldest = next(iter(self._released), None)
        waited = oldest is not None and now - self._released[oldest] >= delay
        if waited and len(self._released) >= _MANY_RELEASED:
            return self._text(oldest)
        while self._next <= self._last and (self._next in self.used or self._next in self._released):
            self._next += 1
        if self._next <= self._last:
            return self._text(self._next)
        return self._text(oldest) if waited or desperate else None

    def _text(self, number: int | None) -> str | None:
        return None if number is None else str(self._class(number))

    def use(self, address: str, owner: str) -> None:
        """Note that an address is in use; one of another range is ignored."""
        if (number := self._number(address)) is not None:
            self._released.pop(number, None)
            self.used[number] = owner

    def release(self, address: str, now: float) -> None:
        """Note that an address is free again, to be reused after the others."""
        if (number := self._number(address)) is not None and self.used.pop(number, None) is not None:
            self._released[number] = now

    def describe(self) -> str:
        """The range, how much of it is used, and by whom, for an error."""
        owners = Counter(owner.partition("/")[0] for owner in self.used.values())
        top = ", ".join(f"{namespace} {count}" for namespace, count in owners.most_common(_TOP_OWNERS))
        return (
            f"pool {self.row.pool} ({self.row.cidr}): {len(self.used)} of {self.size} addresses are used,"
            f" by namespace: {top or 'none'}"
        )


def ranges_of(family: int, ranges: Iterable[AddressRange]) -> Iterator[AddressRange]:
    """Those of one family."""
    return (r for r in ranges if r.row.family == family)


class Aging:
    """Released rows that wait to be forgotten by the table: oldest first."""

    def __init__(self, rows: Iterable[Address]) -> None:
        self._waiting = deque(sorted((a.released, a.address) for a in rows if a.released))

    def add(self, address: str, now: float) -> None:
        """An address was released."""
        self._waiting.append((now, address))

    def due(self, now: float, delay: float, most: int) -> list[tuple[float, str]]:
        """Up to `most` that were released `delay` seconds ago; they leave the queue."""
        found: list[tuple[float, str]] = []
        while self._waiting and len(found) < most and now - self._waiting[0][0] >= delay:
            found.append(self._waiting.popleft())
        return found
