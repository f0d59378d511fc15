"""Label selectors as kubectl writes them: `app=web,tier!=db,zone in (a,b),!old,new`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ciliate.cli.dispatch import CommandError

Labels = Mapping[str, str]
Selector = Callable[[Labels], bool]

_PART = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<name>[^\s,=!()]+)"
    r"|(?P<key>[^\s,=!()]+)\s*(?:(?P<operator>==|=|!=)\s*(?P<value>[^\s,()]*)"
    r"|\s(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|$)"
)


def parse_selector(text: str) -> Selector:
    """A function from labels to whether they match. An empty selector matches all. Raises CommandError."""
    requirements: list[Selector] = []
    at = 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None:
            raise CommandError(
                f"-l {text!r}: can't be read from {text[at:]!r} on; as in app=web,tier!=db,zone in (a,b),!old"
            )
        requirements.append(_requirement(match))
        at = match.end()
    return lambda labels: all(requirement(labels) for requirement in requirements)


def _requirement(match: re.Match[str]) -> Selector:
    key, value = match["key"], match["value"]
    if match["absent"]:
        absent: str = match["name"]
        return lambda labels: absent not in labels
    if match["operator"] == "!=":
        return lambda labels: labels.get(key) != value
    if match["operator"]:
        return lambda labels: labels.get(key) == value
    if match["set"]:
        values = {one.strip() for one in match["values"].split(",")}
        wanted = match["set"] == "in"
        return lambda labels: (labels.get(key) in values) == wanted
    return lambda labels: key in labels
