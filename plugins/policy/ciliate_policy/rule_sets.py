"""Numbers for sets of rules: what a policy-map value names, and events after it. Durable, never given anew."""

from __future__ import annotations

from collections.abc import Iterable

from ciliate.model.policy import Rule, RuleSet

from ciliate_policy.resolve import DEFAULT_DENY_RULE, DEFAULT_RULE, LOCALHOST_RULE, default_rule

ALLOW_ALL, DENY_INGRESS, DENY_EGRESS, LOCALHOST = 1, 2, 3, 4
"""Numbers that every node knows. What default deny drops has no map entry: 2 and 3 are its names."""

WELL_KNOWN = {
    ALLOW_ALL: (default_rule(DEFAULT_RULE),),
    DENY_INGRESS: (default_rule(DEFAULT_DENY_RULE, "ingress"),),
    DENY_EGRESS: (default_rule(DEFAULT_DENY_RULE, "egress"),),
    LOCALHOST: (default_rule(LOCALHOST_RULE),),
}
FIRST = 16
KEEP_UNUSED = 50_000
"""How many sets that no entry names are remembered, for stored flows."""


class RuleSets:
    """Rule sets by number. known: rows of an earlier life."""

    def __init__(self, known: Iterable[RuleSet] = ()) -> None:
        self._rules = {row.id: row.rules for row in known} | WELL_KNOWN
        self._ids = {rules: number for number, rules in self._rules.items()}
        self._next = max(FIRST - 1, *self._rules) + 1
        self._new = [RuleSet(id=number, rules=rules) for number, rules in WELL_KNOWN.items()]

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

    def rules(self, number: int) -> tuple[Rule, ...]:
        """The rules of a number; empty if it is unknown."""
        return self._rules.get(number, ())

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


def _order(rule: Rule) -> tuple[str, str, str, str, int, int]:
    return rule.kind, rule.namespace, rule.name, rule.direction, rule.spec_index, rule.index
