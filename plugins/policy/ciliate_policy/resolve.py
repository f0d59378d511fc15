"""Rules and identities to policy-map entries: what one direction of some endpoints' policy is.

An entry's key is (peer identity or 0 for any, protocol, port, prefix length of the port). The kernel looks up the
peer's own identity and 0, each by longest prefix, and takes the higher precedence (facts, section 11). So within one
identity a longer entry must never hide a broader denial: it is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set

from ciliate.model.policy import Direction, Rule
from msgspec import Struct

from ciliate_policy.ports import range_prefixes
from ciliate_policy.rules import PORT_MAX, PortMatch
from ciliate_policy.selectors import LabelSelector

ANYBODY = 0
"""The identity that stands for every peer."""

L4 = tuple[int, int, int]
"""Protocol (0: any), port, prefix length of the port (0 to 16)."""
NamedPorts = Mapping[tuple[str, int], Set[int]]
"""(name, protocol) to the ports that it means."""

ALL_L4: L4 = (0, 0, 0)
_TOP = 0xFFFFFF << 8
ALLOW = _TOP | 1
DENY = _TOP | 255
DEFAULT_ALLOW = 1
"""Precedences: bits 8 to 31 are the tier (rules are in the first, defaults in the last), the low byte is the action."""

DEFAULT_RULE = "allow-all"
LOCALHOST_RULE = "allow-localhost-ingress"
DEFAULT_DENY_RULE = "default-deny"


def default_rule(name: str, direction: str = "") -> Rule:
    """A rule that no object states."""
    return Rule(kind="", namespace="", name=name, uid="", generation=0, direction=direction, index=0)


class PolicyValue(Struct, frozen=True, gc=False):
    """What a policy-map entry says, and the rules that made it."""

    precedence: int
    rules: tuple[Rule, ...]
    deny: bool = False
    proxy_port: int = 0


Profile = Mapping[L4, PolicyValue]
"""All entries of one peer identity. Shared by the identities to which the same elements apply; never changed."""


class CompiledElement(Struct, frozen=True, gc=False):
    """An element with its CIDR selectors replaced by the label selectors of their identities."""

    rule: Rule
    deny: bool
    peers: tuple[LabelSelector, ...] | None
    ports: tuple[PortMatch, ...] | None

    @property
    def named(self) -> tuple[PortMatch, ...]:
        """Those of its ports that have names."""
        return tuple(match for match in self.ports or () if match.name)


class ResolvedKey(Struct, frozen=True, gc=False):
    """What makes two policies the same: direction, mode, numbers of elements, and what port names mean (ingress)."""

    direction: Direction
    enforcing: bool
    elements: tuple[int, ...]
    names: tuple[tuple[str, int, int], ...] = ()


class Resolved:
    """One direction's policy of all endpoints to which the same elements apply.

    ids: the identities that a selector matches. names: what port names mean at a peer identity (egress).
    """

    def __init__(
        self,
        key: ResolvedKey,
        elements: tuple[CompiledElement, ...],
        ids: Callable[[LabelSelector], Set[int]],
        names: Callable[[int], NamedPorts],
        holders: Callable[[str, int], Set[int]],
    ) -> None:
        self.key = key
        self.elements = elements
        self._ids = ids
        self._names = names
        self._holders = holders
        self._own_names: dict[tuple[str, int], Set[int]] = {}
        for name, protocol, port in key.names:
            self._own_names[name, protocol] = self._own_names.get((name, protocol), frozenset()) | {port}
        self._wildcards = tuple(n for n, element in enumerate(elements) if element.peers is None)
        self._by_peer: defaultdict[LabelSelector, list[int]] = defaultdict(list)
        self._profiles: dict[tuple[tuple[int, ...], frozenset[tuple[str, int, int]]], Profile] = {}
        self.entries: dict[int, Profile] = {}
        #: whether entries depend on what port names mean at peers
        self.uses_peer_names = key.direction is Direction.EGRESS and any(element.named for element in elements)

    @property
    def peers(self) -> Iterable[LabelSelector]:
        """The selectors of all its elements."""
        return self._by_peer.keys()

    @property
    def size(self) -> int:
        """Number of policy-map entries."""
        return sum(len(profile) for profile in self.entries.values())

    def index(self) -> Iterator[None]:
        """Note which elements name which selectors: what `peers` are. In steps, as all that grows with the elements."""
        for number, element in enumerate(self.elements):
            for peer in dict.fromkeys(element.peers or ()):
                self._by_peer[peer].append(number)
            yield

    def resolve(self) -> Iterator[None]:
        """Work out the entries of every identity, as it is when it comes to it."""
        members: dict[int, tuple[int, ...]] = {}
        yield from self._collect(members)
        self.entries = {ANYBODY: self._profile_of(ANYBODY, self._wildcards)}
        named = self.uses_peer_names
        made: dict[tuple[int, ...], Profile] = {}
        for identity, numbers in members.items():
            profile = made.get(numbers)
            if profile is None or named:
                profile = self._profile_of(identity, tuple(sorted({*numbers, *self._named_wildcards(identity)})))
                made[numbers] = profile
                yield
            if profile:
                self.entries[identity] = profile

    def _collect(self, members: dict[int, tuple[int, ...]]) -> Iterator[None]:
        """Identities, each with the numbers of the elements that apply to it."""
        for peer, numbers in self._by_peer.items():
            ids, more = self._ids(peer), tuple(numbers)
            if not members:
                members.update(dict.fromkeys(ids, more))
                continue
            joined: dict[tuple[int, ...], tuple[int, ...]] = {}
            for identity in ids:
                known = members.get(identity, ())
                both = joined.get(known)
                if both is None:
                    both = joined[known] = known + more
                members[identity] = both
            yield
        for identity in self._wildcard_holders():
            members.setdefault(identity, ())

    def refresh(self, identity: int, matching: Iterable[LabelSelector]) -> tuple[Profile, Profile]:
        """Work out the entries of one identity, which some selectors match, anew; (before, after)."""
        before = self.entries.get(identity, {})
        numbers = {number for peer in matching for number in self._by_peer.get(peer, ())}
        after = self._profile_of(identity, tuple(sorted({*numbers, *self._named_wildcards(identity)})))
        if after:
            self.entries[identity] = after
        else:
            self.entries.pop(identity, None)
        return before, after

    def applying(self, identity: int, protocol: int, port: int) -> list[CompiledElement]:
        """All elements that apply to a packet, whether or not one of them decides it."""
        names = self._names(identity) if self.key.direction is Direction.EGRESS else self._own_names
        wanted = set(wider_keys((protocol, port, 16)))
        return [
            element
            for element in self.elements
            if (element.peers is None or any(identity in self._ids(peer) for peer in element.peers))
            and not wanted.isdisjoint(l4_keys(element.ports, names))
        ]

    def lookup(self, identity: int, protocol: int, port: int) -> tuple[int, L4, PolicyValue] | None:
        """What the kernel would find: (identity or 0, key, value) of the deciding entry; None: nothing matches."""
        exact = longest(self.entries.get(identity, {}), protocol, port) if identity != ANYBODY else None
        anybody = longest(self.entries[ANYBODY], protocol, port)
        if exact is None or anybody is None:
            if exact is not None:
                return identity, *exact
            return (ANYBODY, *anybody) if anybody is not None else None
        if anybody[1].precedence != exact[1].precedence:
            return (identity, *exact) if exact[1].precedence > anybody[1].precedence else (ANYBODY, *anybody)
        if _bits(anybody[0]) > _bits(exact[0]):
            return ANYBODY, *anybody
        return identity, *exact

    def _wildcard_holders(self) -> Set[int]:
        """Identities at which a wildcard element's port names mean something (egress)."""
        if self.key.direction is Direction.INGRESS:
            return frozenset()
        named = {(one.name, one.protocol) for n in self._wildcards for one in self.elements[n].named}
        return {identity for name, protocol in named for identity in self._holders(name, protocol)}

    def _named_wildcards(self, identity: int) -> Iterator[int]:
        if identity == ANYBODY or self.key.direction is Direction.INGRESS or not self._wildcards:
            return
        known = self._names(identity)
        for number in self._wildcards:
            if any((one.name, one.protocol) in known for one in self.elements[number].named):
                yield number

    def _profile_of(self, identity: int, numbers: tuple[int, ...]) -> Profile:
        names: NamedPorts = self._own_names
        if self.key.direction is Direction.EGRESS:
            asked = {(one.name, one.protocol) for number in numbers for one in self.elements[number].named}
            known = self._names(identity) if asked and identity != ANYBODY else {}
            names = {name: ports for name, ports in known.items() if name in asked}
        meaning = frozenset((*name, port) for name, ports in names.items() for port in ports)
        cached = self._profiles.get((numbers, meaning))
        if cached is None:
            fallback = identity == ANYBODY and not self.key.enforcing
            cached = merge([self.elements[number] for number in numbers], names, fallback)
            if identity != ANYBODY:
                self._profiles[numbers, meaning] = cached
        return cached


def merge(elements: Iterable[CompiledElement], names: NamedPorts, fallback: bool = False) -> Profile:
    """The entries of one peer to which some elements apply. fallback: what none of them decides is allowed."""
    allows: defaultdict[L4, list[Rule]] = defaultdict(list)
    denials: defaultdict[L4, list[Rule]] = defaultdict(list)
    for element in elements:
        made = denials if element.deny else allows
        for key in l4_keys(element.ports, names):
            made[key].append(element.rule)
    profile = {key: PolicyValue(DENY, tuple(dict.fromkeys(rules)), deny=True) for key, rules in denials.items()}
    for key, rules in allows.items():
        if not denials or not any(wider in denials for wider in wider_keys(key)):
            profile[key] = PolicyValue(ALLOW, tuple(dict.fromkeys(rules)))
    if fallback and ALL_L4 not in profile:
        profile[ALL_L4] = PolicyValue(DEFAULT_ALLOW, (default_rule(DEFAULT_RULE),))
    return profile


def l4_keys(ports: tuple[PortMatch, ...] | None, names: NamedPorts) -> Iterator[L4]:
    """The masked prefixes of some port matches, each once."""
    if ports is None:
        yield ALL_L4
        return
    seen: set[L4] = set()
    for match in ports:
        for first, last in _ranges(match, names):
            for port, length in range_prefixes(first, last):
                key = (match.protocol, port, length)
                if key not in seen:
                    seen.add(key)
                    yield key


def _ranges(match: PortMatch, names: NamedPorts) -> Iterator[tuple[int, int]]:
    if match.name:
        for port in sorted(names.get((match.name, match.protocol), ())):
            yield port, port
    else:
        yield match.first, match.last


def wider_keys(key: L4) -> Iterator[L4]:
    """The key itself and every key that holds it."""
    protocol, port, length = key
    yield key
    for shorter in range(length - 1, -1, -1):
        yield protocol, port & (PORT_MAX << (16 - shorter)) & PORT_MAX, shorter
    if protocol:
        yield ALL_L4


def longest(profile: Profile, protocol: int, port: int) -> tuple[L4, PolicyValue] | None:
    """The longest-prefix match in one identity's entries."""
    for key in wider_keys((protocol, port, 16)):
        value = profile.get(key)
        if value is not None:
            return key, value
    return None


def _bits(key: L4) -> int:
    return 8 + key[2] if key[0] else 0
