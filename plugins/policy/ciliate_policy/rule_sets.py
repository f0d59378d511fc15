"""Numbers for sets of rules: what a policy-map value names, and events after it. Durable, never given anew."""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable

from ciliate.model.policy import Direction, Rule, RuleSet

from ciliate_policy.resolve import DEFAULT_DENY_RULE, DEFAULT_RULE, LOCALHOST_RULE, default_rule

ALLOW_ALL, DENY_INGRESS, DENY_EGRESS, LOCALHOST = 1, 2, 3, 4
"""Numbers that every node knows. 2 and 3: default deny by the mode, or the label of init, and by no policy."""

WELL_KNOWN = {
    ALLOW_ALL: (default_rule(DEFAULT_RULE),),
    DENY_INGRESS: (default_rule(DEFAULT_DENY_RULE, "ingress"),),
    DENY_EGRESS: (default_rule(DEFAULT_DENY_RULE, "egress"),),
    LOCALHOST: (default_rule(LOCALHOST_RULE),),
}
FIRST = 16
MORE_DEFAULTS = "and other policies"
DEFAULTS_NAMED = 16
"""How many policies that switched default deny on are named: of thousands, each change would be a long new set."""
KEEP_UNUSED = 50_000
"""How many sets that no entry names are remembered, for stored flows."""


class RuleSets:
    """Rule sets by number. known: rows of an earlier life; used: a number up to which all may be taken already."""

    def __init__(self, known: Iterable[RuleSet] = (), used: int = 0) -> None:
        self._rules = {row.id: row.rules for row in known} | WELL_KNOWN
        self._ids = {rules: number for number, rules in self._rules.items()}
        self._next = max(FIRST - 1, used, *self._rules) + 1
        self._new: list[RuleSet] = []
        self.renew(self._rules.keys() - WELL_KNOWN.keys())

    def number(self, rules: tuple[Rule, ...]) -> int:
        """The number of some rules, in whatever order; a new one is among the next `take_new`."""
        known = self._ids.get(rules)
        if known is not None:
            return known
        ordered = tuple(sorted(rules, key=_order))
        known = self._ids.get(ordered)
        if known is None:
            known, self._next = self._next, self._next + 1
            self._rules[known] = ordered
            self._ids[ordered] = known
            self._new.append(RuleSet(id=known, rules=ordered))
        return known

    def default(self, direction: Direction, rules: tuple[Rule, ...]) -> int:
        """The number of what is named where nothing allows a packet; rules: of `EndpointPolicies.defaults`."""
        if rules:
            return self.number(rules)
        return DENY_INGRESS if direction is Direction.INGRESS else DENY_EGRESS

    def rules(self, number: int) -> tuple[Rule, ...]:
        """The rules of a number; empty if it is unknown."""
        return self._rules.get(number, ())

    def renew(self, saved: Container[int]) -> None:
        """Offer to `take_new` whatever is not saved: what was taken may have been lost to a full disk."""
        self._new = [RuleSet(id=number, rules=rules) for number, rules in self._rules.items() if number not in saved]

    def take_new(self) -> list[RuleSet]:
        """Rows that must be durable before an entry names them."""
        new, self._new = self._new, []
        return new

    def prune(self, used: Iterable[int]) -> list[int]:
        """Forget the oldest sets that nothing uses, beyond KEEP_UNUSED; which they were."""
        if len(self._rules) <= KEEP_UNUSED:
            return []
        kept = {*used, *WELL_KNOWN}
        unused = sorted(number for number in self._rules if number not in kept and number + 1 < self._next)
        gone = unused[: max(0, len(unused) - KEEP_UNUSED)]
        for number in gone:
            self._ids.pop(self._rules.pop(number), None)
        return gone

    def __len__(self) -> int:
        return len(self._rules)


def first_rules(defaults: list[Rule]) -> tuple[Rule, ...]:
    """The first DEFAULTS_NAMED of what switched default deny on in a direction; and one more that says so, of more."""
    if len(defaults) <= DEFAULTS_NAMED:
        return tuple(sorted(defaults, key=_order))
    more = default_rule(MORE_DEFAULTS, defaults[0].direction)
    return (*heapq.nsmallest(DEFAULTS_NAMED, defaults, key=_order), more)


def _order(rule: Rule) -> tuple[bool, str, str, str, str, int, int]:
    return not rule.kind, rule.kind, rule.namespace, rule.name, rule.direction, rule.spec_index, rule.index
