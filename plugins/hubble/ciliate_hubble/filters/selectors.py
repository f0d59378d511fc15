"""Label selectors in Kubernetes' grammar, over labels `source:key=value`; a key without a source is of any."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

Labels = Mapping[str, frozenset[str]]
"""Values by key, and by source:key. `any` sources together may have several values for a key."""
Matches = Callable[[Labels], bool]

ANY = "any"
_TOKEN = re.compile(r"\s*(?:(?P<word>[^\s,()=!<>]+)|(?P<sign>==|!=|[=<>!,()]))")
_SOURCE = re.compile(r"[a-z][-a-z0-9]*")


class SelectorError(ValueError):
    """A text that is no selector; the message says where it ceases to be one."""


@lru_cache(16_384)
def parsed_labels(labels: tuple[str, ...]) -> Labels:
    """Labels as selectors look at them."""
    found: dict[str, set[str]] = {}
    for label in labels:
        whole, _, value = label.partition("=")
        _, separator, key = whole.partition(":")
        found.setdefault(whole, set()).add(value)
        found.setdefault(f"{ANY}:{key if separator else whole}", set()).add(value)
    return {key: frozenset(values) for key, values in found.items()}


def selector(text: str) -> Matches:
    """Whether labels are as a selector says: requirements separated by commas, all of which must hold.

    Raises SelectorError.
    """
    parser = _Parser(text)
    requirements = [parser.requirement()]
    while parser.take(","):
        requirements.append(parser.requirement())
    parser.end()
    return lambda labels: all(matches(labels) for matches in requirements)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split(text))
        self._at = 0

    def _split(self, text: str) -> Iterable[str]:
        text, at = text.rstrip(), 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise SelectorError(f"{self._text!r} is no label selector at {text[at:]!r}")
            yield found["word"] or found["sign"]
            at = found.end()

    def take(self, sign: str) -> bool:
        """Whether this sign is next; then it is done with."""
        if self._at < len(self._tokens) and self._tokens[self._at] == sign:
            self._at += 1
            return True
        return False

    def end(self) -> None:
        """Raises SelectorError unless all is done with."""
        if self._at < len(self._tokens):
            raise self._wrong("a comma")

    def requirement(self) -> Matches:
        """One requirement."""
        absent = self.take("!")
        key = _key(self._word("a key"))
        if absent:
            return lambda labels: key not in labels
        for sign, negated in (("!=", True), ("==", False), ("=", False)):
            if self.take(sign):
                return _among(key, {self._value()}, negated)
        for sign in "<>":
            if self.take(sign):
                return _compared(key, sign, self._number())
        for word, negated in (("in", False), ("notin", True)):
            if self.take(word):
                return _among(key, self._set(), negated)
        return lambda labels: key in labels

    def _word(self, wanted: str) -> str:
        if self._at < len(self._tokens) and self._tokens[self._at] not in (
            "=",
            "==",
            "!=",
            "<",
            ">",
            "!",
            ",",
            "(",
            ")",
        ):
            self._at += 1
            return self._tokens[self._at - 1]
        raise self._wrong(wanted)

    def _value(self) -> str:
        ended = self._at >= len(self._tokens) or self._tokens[self._at] in (",", ")")
        return "" if ended else self._word("a value")

    def _number(self) -> int:
        word = self._word("a number")
        if not re.fullmatch(r"-?\d{1,18}", word):
            raise SelectorError(f"{self._text!r}: {word!r} is no number")
        return int(word)

    def _set(self) -> set[str]:
        if not self.take("("):
            raise self._wrong("(")
        values = {self._value()}
        while self.take(","):
            values.add(self._value())
        if not self.take(")"):
            raise self._wrong(")")
        return values

    def _wrong(self, wanted: str) -> SelectorError:
        there = repr(self._tokens[self._at]) if self._at < len(self._tokens) else "its end"
        return SelectorError(f"{self._text!r} is no label selector: {wanted} is wanted instead of {there}")


def _key(word: str) -> str:
    source, separator, _ = word.partition(":")
    return word if separator and _SOURCE.fullmatch(source) else f"{ANY}:{word}"


def _among(key: str, wanted: set[str], negated: bool) -> Matches:
    def matches(labels: Labels) -> bool:
        return bool(labels.get(key, frozenset()) & wanted) != negated

    return matches


def _compared(key: str, sign: str, number: int) -> Matches:
    def matches(labels: Labels) -> bool:
        numbers = [int(value) for value in labels.get(key, ()) if re.fullmatch(r"-?\d{1,18}", value)]
        return any(value < number if sign == "<" else value > number for value in numbers)

    return matches
