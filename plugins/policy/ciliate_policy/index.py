"""Which identities each selector matches, kept current as either changes: an inverted index over labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Set

from ciliate_policy.selectors import LabelMap, LabelSelector, label_map, tokens

_NOTHING: frozenset[int] = frozenset()


class SelectorIndex:
    """Selectors in use and identities, matched against each other.

    A selector is found through one of its positive requirements (the rarest at the time it is added); one that has none
    is asked about every identity.
    """

    def __init__(self) -> None:
        self._labels: dict[int, LabelMap] = {}
        self._ids_of_token: defaultdict[str, set[int]] = defaultdict(set)
        self._matched: dict[LabelSelector, set[int]] = {}
        self._uses: dict[LabelSelector, int] = {}
        self._selectors_of_token: defaultdict[str, set[LabelSelector]] = defaultdict(set)
        self._tokens_of_selector: dict[LabelSelector, tuple[str, ...]] = {}
        self._unindexed: set[LabelSelector] = set()

    def __contains__(self, identity: int) -> bool:
        return identity in self._labels

    @property
    def identities(self) -> Iterable[int]:
        """All identities."""
        return self._labels.keys()

    def ids(self, selector: LabelSelector) -> Set[int]:
        """The identities that a selector in use matches."""
        return self._matched.get(selector, _NOTHING)

    def acquire(self, selector: LabelSelector) -> None:
        """Begin to match a selector, or count one more use of it."""
        self._uses[selector] = self._uses.get(selector, 0) + 1
        if self._uses[selector] > 1:
            return
        self._register(selector)
        self._matched[selector] = {
            identity for identity in self._candidates(selector) if selector.matches(self._labels[identity])
        }

    def release(self, selector: LabelSelector) -> None:
        """Give up a use; with the last one the selector is forgotten."""
        self._uses[selector] -= 1
        if self._uses[selector]:
            return
        del self._uses[selector], self._matched[selector]
        self._unindexed.discard(selector)
        for token in self._tokens_of_selector.pop(selector, ()):
            self._selectors_of_token[token].discard(selector)
            if not self._selectors_of_token[token]:
                del self._selectors_of_token[token]

    def add(self, identity: int, labels: Iterable[str]) -> set[LabelSelector]:
        """Add an identity, or give it other labels; the selectors for which something changed."""
        asked = label_map(labels)
        if self._labels.get(identity) == asked:
            return set()
        changed = self.remove(identity)
        self._labels[identity] = asked
        found = tokens(asked)
        for token in found:
            self._ids_of_token[token].add(identity)
        matching = {selector for selector in self._askable(found) if selector.matches(asked)}
        for selector in matching:
            self._matched[selector].add(identity)
        return changed ^ matching

    def remove(self, identity: int) -> set[LabelSelector]:
        """Forget an identity; the selectors that matched it."""
        asked = self._labels.pop(identity, None)
        if asked is None:
            return set()
        found = tokens(asked)
        for token in found:
            ids = self._ids_of_token[token]
            ids.discard(identity)
            if not ids:
                del self._ids_of_token[token]
        changed = {selector for selector in self._askable(found) if identity in self._matched[selector]}
        for selector in changed:
            self._matched[selector].discard(identity)
        return changed

    def matching(self, identity: int) -> set[LabelSelector]:
        """The selectors in use that match an identity."""
        asked = self._labels.get(identity)
        if asked is None:
            return set()
        return {selector for selector in self._askable(tokens(asked)) if identity in self._matched[selector]}

    def _askable(self, found: set[str]) -> set[LabelSelector]:
        askable = set(self._unindexed)
        for token in found:
            if token in self._selectors_of_token:
                askable |= self._selectors_of_token[token]
        return askable

    def _register(self, selector: LabelSelector) -> None:
        choices = [one.tokens() for one in selector.requirements if one.positive]
        if not choices:
            self._unindexed.add(selector)
            return
        rarest = min(choices, key=self._count)
        self._tokens_of_selector[selector] = rarest
        for token in rarest:
            self._selectors_of_token[token].add(selector)

    def _count(self, choice: tuple[str, ...]) -> int:
        return sum(len(self._ids_of_token.get(token, _NOTHING)) for token in choice)

    def _candidates(self, selector: LabelSelector) -> Iterable[int]:
        if selector in self._unindexed:
            return self._labels
        found: set[int] = set()
        for token in self._tokens_of_selector[selector]:
            found |= self._ids_of_token.get(token, _NOTHING)
        return found
