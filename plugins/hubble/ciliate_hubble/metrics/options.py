"""What is to be counted, as Hubble spells it: `flow:sourceContext=pod|reserved-identity;labelsContext=source_app`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CONTEXTS = (
    *("identity", "namespace", "pod", "pod-name", "dns", "ip", "reserved-identity", "workload", "workload-name", "app"),
)
"""What a label `source` or `destination` may show; of several, the first that is not empty."""
SIDES = ("source", "destination")
END_LABELS = ("ip", "pod", "namespace", "workload", "workload_kind", "app")
LABELS = (*(f"{side}_{name}" for side in SIDES for name in END_LABELS), "traffic_direction")
"""What labelsContext may list."""
METRICS: Mapping[str, frozenset[str]] = {
    "dns": frozenset({"query", "ignoreAAAA"}),
    "drop": frozenset(),
    "flow": frozenset(),
    "flows-to-world": frozenset({"any-drop", "port", "syn-only"}),
    "http": frozenset(),
    "httpV2": frozenset(),
    "icmp": frozenset(),
    "policy": frozenset(),
    "port-distribution": frozenset(),
    "tcp": frozenset(),
}
"""Names of metrics, and the switches that each has beside the contexts."""
_KEYS = {
    f"{side}{direction}Context": (side, direction.lower()) for side in SIDES for direction in ("", "Egress", "Ingress")
}


class OptionError(ValueError):
    """A metric or an option is wrong; the message names it and says what there is."""


@dataclass(frozen=True)
class MetricOptions:
    """One metric with its labels.

    `contexts`: by side and traffic direction (empty: any), the alternatives, in order.
    """

    name: str
    contexts: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    switches: frozenset[str] = frozenset()

    def alternatives(self, side: str, direction: str) -> tuple[str, ...]:
        """What the label of a side shows of a flow of that traffic direction; empty: there is no such label."""
        return self.contexts.get((side, direction)) or self.contexts.get((side, "")) or ()

    def shows(self, side: str) -> bool:
        """Whether there is a label `source` or `destination`."""
        return any(known == side for known, _ in self.contexts)

    @property
    def wanted(self) -> frozenset[str]:
        """All contexts and labels that some flow may need."""
        return frozenset(each for alternatives in self.contexts.values() for each in alternatives) | set(self.labels)


def parse_metric(text: str) -> MetricOptions:
    """One element of the list `hubble.metrics`. Raises OptionError."""
    name, _, rest = text.partition(":")
    if name not in METRICS:
        raise OptionError(f"{name!r} is no metric; there are {', '.join(METRICS)}")
    contexts: dict[tuple[str, str], tuple[str, ...]] = {}
    labels: tuple[str, ...] = ()
    switches: set[str] = set()
    for option in filter(None, rest.split(";")):
        key, equals, value = option.partition("=")
        if key in _KEYS:
            contexts[_KEYS[key]] = _checked(name, key, value.split("|"), CONTEXTS)
        elif key == "labelsContext":
            labels = _checked(name, key, value.split(","), LABELS)
        elif key in METRICS[name] and (not equals or value == "true"):
            switches.add(key)
        else:
            known = (*_KEYS, "labelsContext", *sorted(METRICS[name]))
            raise OptionError(f"{name}: {option!r} is no option; there are {', '.join(known)}")
    return MetricOptions(name, contexts, labels, frozenset(switches))


def parse_metrics(texts: list[str]) -> list[MetricOptions]:
    """The list `hubble.metrics`. Raises OptionError."""
    found = [parse_metric(text) for text in texts]
    names = [each.name for each in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise OptionError(f"{twice[0]} is listed twice")
    if {"http", "httpV2"} <= set(names):
        raise OptionError("http and httpV2 have counters of the same names: list one of them")
    return found


def _checked(metric: str, key: str, values: list[str], known: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value not in known:
            raise OptionError(f"{metric}: {key}: {value!r} is none of {', '.join(known)}")
    return tuple(values)
