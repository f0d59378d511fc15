"""CIDR selectors: which prefixes they make, and which selectors cover each prefix.

The addresses outside the cluster are cut into regions, one for each prefix that a selector names as a member or as an
exception: what is inside it and inside no longer one. All regions covered by the same selectors share an identity.
"""

from __future__ import annotations

import hashlib
import ipaddress
from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable

from ciliate.model.base import IPNetwork

from ciliate_policy.labels import CIDR_GROUP_NAME
from ciliate_policy.rules import CidrSelector

Prefix = tuple[int, int, int]
"""IP version, address as a number with the host bits zero, prefix length: sorts before what is inside it."""
Members = Iterable[tuple[IPNetwork, tuple[IPNetwork, ...]]]


def make_prefix(network: IPNetwork) -> Prefix:
    """The prefix of a network."""
    return network.version, int(network.network_address), network.prefixlen


def network_of(prefix: Prefix) -> IPNetwork:
    """The network of a prefix."""
    version, address, length = prefix
    return ipaddress.IPv4Network((address, length)) if version == 4 else ipaddress.IPv6Network((address, length))


def prefix_label(network: IPNetwork) -> str:
    """The label key of a CIDR, as Cilium spells it: colons of IPv6 as dashes, none at an end."""
    if network.version == 4:
        return f"cidr:{network}"
    address = str(network.network_address).replace(":", "-")
    address = f"0{address}" if address.startswith("-") else address
    address = f"{address}0" if address.endswith("-") else address
    return f"cidr:{address}/{network.prefixlen}"


def selector_label(selector: CidrSelector) -> str:
    """The label that identities covered by a selector carry: its CIDR, its group, or the digest of a list."""
    if len(selector.networks) == 1 and not selector.groups and not selector.group_selectors:
        network, excepts = selector.networks[0]
        if not excepts:
            return prefix_label(network)
    if len(selector.groups) == 1 and not selector.networks and not selector.group_selectors:
        name, excepts = selector.groups[0]
        if not excepts:
            return f"cidrgroup:{CIDR_GROUP_NAME}/{name}"
    parts = [f"{network}!{_join(excepts)}" for network, excepts in selector.networks]
    parts += [f"group {name}!{_join(excepts)}" for name, excepts in selector.groups]
    parts += [f"groups {one}!{_join(excepts)}" for one, excepts in selector.group_selectors]
    digest = hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()
    return f"cidrset:{digest[:16]}"


def _join(networks: Iterable[IPNetwork]) -> str:
    return ",".join(sorted(map(str, networks)))


class CidrIndex:
    """Selectors by their label, and the regions that their prefixes make."""

    def __init__(self) -> None:
        self._members: dict[str, tuple[tuple[Prefix, tuple[Prefix, ...]], ...]] = {}
        self._covering: defaultdict[Prefix, list[tuple[str, tuple[Prefix, ...]]]] = defaultdict(list)
        self._uses: Counter[Prefix] = Counter()
        self._sorted: list[Prefix] = []
        self._lengths: Counter[tuple[int, int]] = Counter()

    def put(self, label: str, members: Members) -> set[Prefix]:
        """Add or replace a selector; the regions that it touches, new and gone ones among them."""
        touched = self.discard(label)
        cut = tuple((make_prefix(network), tuple(map(make_prefix, excepts))) for network, excepts in members)
        self._members[label] = cut
        for prefix, excepts in cut:
            self._covering[prefix].append((label, excepts))
            self._lengths[prefix[0], prefix[2]] += 1
            for one in (prefix, *excepts):
                self._uses[one] += 1
                if self._uses[one] == 1:
                    insort(self._sorted, one)
        return touched | self._inside(prefix for prefix, _ in cut)

    def discard(self, label: str) -> set[Prefix]:
        """Forget a selector; the regions that it touched."""
        cut = self._members.pop(label, ())
        touched = self._inside(prefix for prefix, _ in cut)
        for prefix, excepts in cut:
            self._covering[prefix].remove((label, excepts))
            if not self._covering[prefix]:
                del self._covering[prefix]
            self._lengths[prefix[0], prefix[2]] -= 1
            for one in (prefix, *excepts):
                self._uses[one] -= 1
                if not self._uses[one]:
                    del self._uses[one]
                    del self._sorted[bisect_left(self._sorted, one)]
        return touched

    def __contains__(self, prefix: Prefix) -> bool:
        return self._uses.get(prefix, 0) > 0

    def cover(self, prefix: Prefix) -> frozenset[str]:
        """The labels of all selectors that cover a region."""
        version, address, length = prefix
        width = 32 if version == 4 else 128
        found: set[str] = set()
        for (one_version, shorter), count in self._lengths.items():
            if not count or one_version != version or shorter > length:
                continue
            outer = (version, address >> (width - shorter) << (width - shorter), shorter)
            for label, excepts in self._covering.get(outer, ()):
                if not any(_covers(one, prefix) for one in excepts):
                    found.add(label)
        return frozenset(found)

    def _inside(self, prefixes: Iterable[Prefix]) -> set[Prefix]:
        found: set[Prefix] = set()
        for version, address, length in prefixes:
            size = 1 << ((32 if version == 4 else 128) - length)
            start = bisect_left(self._sorted, (version, address, length))
            end = bisect_left(self._sorted, (version, address + size, 0))
            found.update(self._sorted[start:end])
        return found


def _covers(outer: Prefix, inner: Prefix) -> bool:
    if outer[0] != inner[0] or outer[2] > inner[2]:
        return False
    shift = (32 if outer[0] == 4 else 128) - outer[2]
    return outer[1] >> shift == inner[1] >> shift
