"""What the fields of FlowFilter mean that ask who an end is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ciliate_hubble.api.flow_pb2 import Workload
from ciliate_hubble.ends import End
from ciliate_hubble.filters.field import Field, Meaning
from ciliate_hubble.filters.patterns import PatternError, name_pattern
from ciliate_hubble.filters.predicates import EndPredicate, Predicate, nothing
from ciliate_hubble.filters.selectors import SelectorError, parsed_labels, selector


def _ends(side: str, make: Callable[[Any], Callable[[End], bool]], *errors: type[ValueError]) -> Meaning:
    def meaning(field: Field) -> Predicate:
        tests = field.each(make, *errors)
        return EndPredicate(side, field.tables, lambda end: any(test(end) for test in tests))

    return meaning


def _pod(text: str) -> Callable[[End], bool]:
    namespace, prefix = split_name(text)
    return lambda end: (
        bool(end.namespace or end.pod)
        and namespace in ("", end.namespace)
        and (not prefix or end.pod.startswith(prefix))
    )


def split_name(text: str) -> tuple[str, str]:
    """Namespace and name's prefix of `[namespace/][prefix]`; without a slash the namespace is `default`."""
    namespace, separator, prefix = text.partition("/")
    if not separator:
        namespace, prefix = "default", text
    if not text or "/" in prefix:
        raise ValueError(f"{text!r} is no name: write prefix, namespace/prefix, namespace/ or /prefix")
    return namespace, prefix


def _labels(text: str) -> Callable[[End], bool]:
    matches = selector(text)
    return lambda end: matches(parsed_labels(end.labels))


def _workload(wanted: Workload) -> Callable[[End], bool]:
    name, kind = wanted.name, wanted.kind
    return lambda end: any(name in ("", w.name) and kind in ("", w.kind) for w in end.workloads)


def _cluster(wanted: str) -> Callable[[End], bool]:
    if not wanted:
        raise ValueError("a cluster's name is empty; leave the value out, or name a cluster")
    return lambda end: end.cluster == wanted


def _unnamed(check: Callable[[str], Any], *errors: type[ValueError]) -> Meaning:
    """Names that no flow has yet (services, DNS names): checked, and never matched."""

    def meaning(field: Field) -> Predicate:
        field.each(check, *errors)
        return nothing

    return meaning


def _both(name: str, make: Callable[[str], Meaning]) -> dict[str, Meaning]:
    return {f"{side}_{name}": make(side) for side in ("source", "destination")}


MEANINGS: dict[str, Meaning] = {
    **_both("pod", lambda side: _ends(side, _pod, ValueError)),
    **_both("label", lambda side: _ends(side, _labels, SelectorError)),
    **_both("workload", lambda side: _ends(side, _workload)),
    **_both("cluster_name", lambda side: _ends(side, _cluster, ValueError)),
    **_both("fqdn", lambda _: _unnamed(name_pattern, PatternError)),
    **_both("service", lambda _: _unnamed(split_name, ValueError)),
}
