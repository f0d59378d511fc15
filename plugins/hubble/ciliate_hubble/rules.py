"""The rules behind flows: rule sets by number. A number is never given to other rules, so flows name it for good."""

from __future__ import annotations

from ciliate.model.policy import DEFAULT_DENY, Direction, Rule, RuleSet

from ciliate_hubble.names import Remembered

DEFAULT_DENY_RULE = "default-deny"


class Rules:
    """Rule sets that this node's policy has made."""

    def __init__(self) -> None:
        self.version = 0  # grows with each new set: what was encoded without it may be encoded anew
        self._sets: Remembered[int, tuple[Rule, ...]] = Remembered()
        self._defaults = {Direction.INGRESS: 0, Direction.EGRESS: 0}

    def put(self, row: RuleSet) -> None:
        """A set of rules."""
        self._sets.put(row.id, row.rules)
        rule = row.rules[0] if len(row.rules) == 1 else None
        if rule is not None and _is_default_deny(rule) and rule.direction:
            self._defaults[Direction[rule.direction.upper()]] = row.id
        self.version += 1

    def delete(self, number: int) -> None:
        """No policy-map entry names it any more."""
        self._sets.delete(number)

    def rules(self, number: int) -> tuple[Rule, ...]:
        """The rules of a set; empty if it is unknown."""
        return self._sets.get(number) or ()

    def default_deny(self, direction: Direction) -> int:
        """The set that stands for a default deny of which nobody says more; 0 until it is known."""
        return self._defaults[direction]

    def denies(self, number: int) -> bool:
        """Whether a set is one that denies."""
        return any(
            rule.direction.endswith("Deny") or rule.index == DEFAULT_DENY or _is_default_deny(rule)
            for rule in self.rules(number)
        )


def _is_default_deny(rule: Rule) -> bool:
    return not rule.kind and rule.name == DEFAULT_DENY_RULE
