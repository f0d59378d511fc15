"""Labels of a flow that its metric's options ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ciliate_hubble.columns import TrafficDirection
from ciliate_hubble.encoding.parts import address_text
from ciliate_hubble.ends import End
from ciliate_hubble.metrics.options import SIDES, MetricOptions

DIRECTIONS = {int(each): each.name.lower() for each in TrafficDirection}
_APP_KEYS = ("k8s:app.kubernetes.io/name=", "k8s:k8s-app=", "k8s:app=")
_OTHER = {"source": "destination", "destination": "source"}


def _first(labels: tuple[str, ...], *prefixes: str) -> str:
    """The first label, in the prefixes' order, that begins with one of them."""
    return next((label for prefix in prefixes for label in labels if label.startswith(prefix)), "")


def _app(end: End) -> str:
    return _first(end.labels, *_APP_KEYS).partition("=")[2]


def _within(end: End, name: str) -> str:
    return f"{end.namespace}/{name}" if name else ""


def _workload(end: End) -> str:
    return end.workloads[0].name if end.workloads else ""


_CONTEXTS: Mapping[str, Callable[[End, str], str]] = {
    "identity": lambda end, _: ",".join(end.labels),
    "namespace": lambda end, _: end.namespace,
    "pod": lambda end, _: _within(end, end.pod),
    "pod-name": lambda end, _: end.pod,
    "dns": lambda _end, _address: "",  # no table of names yet
    "ip": lambda _, address: address,
    "reserved-identity": lambda end, _: _first(end.labels, "reserved:kube-apiserver", "reserved:"),
    "workload": lambda end, _: _within(end, _workload(end)),
    "workload-name": lambda end, _: _workload(end),
    "app": lambda end, _: _app(end),
}
_LABELS: Mapping[str, Callable[[End, str], str]] = {
    "ip": lambda _, address: address,
    "pod": lambda end, _: end.pod,
    "namespace": lambda end, _: end.namespace,
    "workload": lambda end, _: _workload(end),
    "workload_kind": lambda end, _: end.workloads[0].kind if end.workloads else "",
    "app": lambda end, _: _app(end),
}


class FlowLabels:
    """The labels that options add to a metric's own: their names, what they depend on, and a flow's values."""

    def __init__(self, options: MetricOptions) -> None:
        self._options = options
        self._sides = tuple(side for side in SIDES if options.shows(side))
        self.names = (*self._sides, *options.labels)
        self.by_address = {side: self._needs(side, "ip") for side in SIDES}
        self.made_of = self._columns()
        self._pods: dict[str, tuple[str, str]] = {}  # namespace and name of the pods that a context has shown, by text
        self.by_pod = any("pod" in each for each in options.contexts.values()) or any(
            label in options.labels for label in ("source_pod", "destination_pod")
        )

    def _columns(self) -> tuple[str, ...]:
        """Columns of FLOW on which the values depend."""
        options, found = self._options, []
        for side in SIDES:
            found += [f"{side}_end"] if self._needs(side, "ip", but=True) else []
            found += [side, "family"] if self.by_address[side] else []
        by_direction = "traffic_direction" in options.labels or any(way for _, way in options.contexts)
        return tuple(dict.fromkeys([*found, *(["direction"] if by_direction else [])]))

    def _needs(self, side: str, what: str, but: bool = False) -> bool:
        """Whether a value depends on a side's address, or (`but`) on anything else of it."""
        shown = {each for (known, _), many in self._options.contexts.items() if known == side for each in many}
        names = shown | {name.removeprefix(f"{side}_") for name in self._options.labels if name.startswith(side)}
        return bool(names - {what}) if but else what in names

    def values(self, row: Any, ends: list[End], inverted: bool = False) -> tuple[str, ...]:
        """Of a row of FLOW. inverted: source and destination change places, as for an answer told as its request."""
        direction = DIRECTIONS.get(int(row["direction"]), "unknown")
        of = {side: _OTHER[side] if inverted else side for side in SIDES}
        end = {side: ends[int(row[f"{of[side]}_end"])] for side in SIDES}
        address = {side: _address(row, of[side]) if self.by_address[side] else "" for side in SIDES}
        shown = self._options.alternatives
        found = [self._context(end[side], address[side], shown(side, direction)) for side in self._sides]
        for name in self._options.labels:
            side, _, what = name.partition("_")
            found.append(direction if name == "traffic_direction" else _LABELS[what](end[side], address[side]))
        return tuple(found)

    def _context(self, end: End, address: str, alternatives: tuple[str, ...]) -> str:
        """The first alternative that is not empty."""
        for each in alternatives:
            if value := _CONTEXTS[each](end, address):
                if each == "pod":
                    self._pods[value] = (end.namespace, end.pod)
                return value
        return ""

    def forget(self, pods: set[tuple[str, str]]) -> None:
        """These are gone, and their series too."""
        self._pods = {value: pod for value, pod in self._pods.items() if pod not in pods}

    def pods(self, values: tuple[str, ...]) -> set[tuple[str, str]]:
        """The pods, as namespace and name, that a series of these values is about alone."""
        by_name = dict(zip(self.names, values, strict=True))
        found = set()
        for side in SIDES:
            if (known := self._pods.get(by_name.get(side, ""))) is not None:
                found.add(known)
            if pod := by_name.get(f"{side}_pod", ""):
                found.add((by_name.get(f"{side}_namespace", ""), pod))
        return found


def _address(row: Any, side: str) -> str:
    if row["family"] == 0:
        return ""
    return address_text(row[side].tobytes())
