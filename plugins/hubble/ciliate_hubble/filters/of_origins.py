"""What the fields of FlowFilter mean that ask where a flow was seen, and under which id."""

from __future__ import annotations

from ciliate_hubble.columns import Flows
from ciliate_hubble.filters.errors import FilterError
from ciliate_hubble.filters.field import Field, Meaning
from ciliate_hubble.filters.patterns import PatternError, node_pattern
from ciliate_hubble.filters.predicates import L7Predicate, Mask, Predicate, among, everything, nothing
from ciliate_hubble.filters.selectors import SelectorError, parsed_labels, selector


def _uuids(field: Field) -> Predicate:
    known = (field.tables.uuids.sequence(value) for value in field.values)
    return among("sequence", [sequence for sequence in known if sequence is not None])


def _node_names(field: Field) -> Predicate:
    name = field.tables.node_name
    matches = field.each(node_pattern, PatternError)
    return everything if any(match(name) for match in matches) else nothing


def _node_labels(field: Field) -> Predicate:
    matches = field.each(selector, SelectorError)

    def mask(flows: Flows) -> Mask:
        found = nothing(flows)
        for first, labels in field.tables.node_labels.versions():
            wanted = any(match(parsed_labels(labels)) for match in matches)
            found[flows["sequence"] >= first] = wanted
        return found

    return mask


def _trace_ids(field: Field) -> Predicate:
    wanted = set(field.values)
    return L7Predicate(field.tables, lambda entry: entry.record.trace_id in wanted)


def _ip_trace_ids(field: Field) -> Predicate:
    return everything if 0 in field.values else nothing  # no flow has one


def _experimental(field: Field) -> Predicate:
    if field.values[0].cel_expression:
        raise FilterError(
            f"{field.path}.cel_expression", "CEL is not supported; say the same with the other fields of the filter"
        )
    return everything


MEANINGS: dict[str, Meaning] = {
    "uuid": _uuids,
    "node_name": _node_names,
    "node_labels": _node_labels,
    "trace_id": _trace_ids,
    "ip_trace_id": _ip_trace_ids,
    "experimental": _experimental,
}
