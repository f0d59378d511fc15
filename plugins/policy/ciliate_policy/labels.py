"""Labels in their text form `source:key=value`, and which of them make an identity."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

POD_NAMESPACE = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."
CLUSTER = "io.cilium.k8s.policy.cluster"
SERVICE_ACCOUNT = "io.cilium.k8s.policy.serviceaccount"
CIDR_GROUP_NAME = "io.cilium.policy.cidrgroupname"

DEFAULT_FILTER = (
    "reserved:.*",
    r"io\.kubernetes\.pod\.namespace",
    r"io\.cilium\.k8s\.namespace\.labels",
    r"io\.cilium\.k8s\.policy\.cluster",
    r"io\.cilium\.k8s\.policy\.serviceaccount",
    r"app\.kubernetes\.io",
    r"!io\.kubernetes",
    r"!kubernetes\.io",
    r"!.*beta\.kubernetes\.io",
    r"!k8s\.io",
    r"!topology\.kubernetes\.io",
    r"!statefulset\.kubernetes\.io/pod-name",
    r"!apps\.kubernetes\.io/pod-index",
    r"!batch\.kubernetes\.io/job-completion-index",
    r"!batch\.kubernetes\.io/controller-uid",
    "!pod-template-generation",
    "!pod-template-hash",
    "!controller-revision-hash",
    "!controller-uid",
    "!annotation",
    "!etcd_node",
)
"""Cilium's default: `[!][source:]regex`, each matched at the start of a label's key."""


class Label(NamedTuple):
    """One label. Its text is `source:key=value`, or `source:key` where the value is empty."""

    source: str
    key: str
    value: str

    def __str__(self) -> str:
        name = f"{self.source}:{self.key}"
        return f"{name}={self.value}" if self.value else name


def parse_label(text: str, default_source: str = "unspec") -> Label:
    """The label that a text names. The source ends at the first colon before any `=`; `$x` is `reserved:x`."""
    name, _, value = text.partition("=")
    if name.startswith("$"):
        return Label("reserved", name[1:], value)
    source, colon, key = name.partition(":")
    if not colon:
        source, key = default_source, name
    if not key:
        raise ValueError(f"label {text!r} has no key; a label is source:key=value")
    return Label(source or default_source, key, value)


class _Pattern(NamedTuple):
    source: str  # empty: any
    key: re.Pattern[str]
    ignore: bool


class LabelFilter:
    """Which labels are identity-relevant.

    entries: the user's own `[!][source:]regex` entries, after which the defaults still apply. One that is not negated
    makes the filter an allow-list: what nothing includes is left out. Raises ValueError naming the bad entry.
    """

    def __init__(self, entries: Sequence[str] = ()) -> None:
        self.allow_list = any(not entry.startswith("!") for entry in entries)
        self._patterns = [_pattern(entry) for entry in (*entries, *DEFAULT_FILTER)]

    def is_relevant(self, label: Label) -> bool:
        """The longest including match must be longer than the shortest ignoring one."""
        included, ignored = 0, None
        for pattern in self._patterns:
            if pattern.source and pattern.source != label.source:
                continue
            match = pattern.key.match(label.key)
            if match is None:
                continue
            length = match.end()
            if pattern.ignore:
                ignored = length if ignored is None else min(ignored, length)
            else:
                included = max(included, length)
        if ignored is None:
            return included > 0 or not self.allow_list
        return included > ignored

    def identity_labels(self, labels: Iterable[str]) -> tuple[str, ...]:
        """The identity-relevant ones of some labels, in canonical text, sorted, each once."""
        parsed = (parse_label(text) for text in labels)
        return tuple(sorted({str(label) for label in parsed if self.is_relevant(label)}))


def _pattern(entry: str) -> _Pattern:
    ignore = entry.startswith("!")
    body = entry[1:] if ignore else entry
    source, colon, key = body.partition(":")
    if not colon:
        source, key = "", body
    try:
        return _Pattern(source, re.compile(key), ignore)
    except re.error as error:
        raise ValueError(f"label filter {entry!r}: {key!r} is not a regular expression: {error}") from None
