"""A node's metrics count the flows that the node shows."""

from __future__ import annotations

import urllib.request
from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

from tests.node.hubble.cluster import Cluster
from tests.node.hubble.program import Flow, Hubble
from tests.node.labs import Place, until

TYPES = {1: "Drop", 4: "Trace", 5: "PolicyVerdict", 7: "TraceSock", 129: "L7"}
Counted = Counter[tuple[str, ...]]


def _scraped(node: Place, name: str, *labels: str) -> Counted:
    """Values of a counter by some labels."""
    text = node.inside(lambda: urllib.request.urlopen("http://127.0.0.1:9965/metrics", timeout=5).read().decode())
    found: Counted = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                found[tuple(sample.labels[label] for label in labels)] += int(sample.value)
    return found


def _protocol(flow: Flow) -> str:
    layers = [*(name.upper() for name in ("dns", "http") if name in flow.get("l7", {})), *flow.get("l4", {})]
    return layers[0] if layers else "Unknown"


def _source(flow: Flow) -> str:
    end = flow.get("source", {})
    if "pod_name" in end:
        return f"{end['namespace']}/{end['pod_name']}"
    return next((label for label in end.get("labels", []) if label.startswith("reserved:")), "")


def test_metrics_count_the_flows_that_a_node_shows(cluster: Cluster, hubble: Hubble, flows: list[Flow]) -> None:
    for number in (1, 2):
        node = cluster.lab.host(number)

        def equal(number: int = number, node: Place = node) -> bool:
            shown = hubble.flows(f"--all --node-name node{number}")
            by_kind = Counter(
                (_protocol(flow), TYPES[flow["event_type"]["type"]], flow["verdict"], _source(flow)) for flow in shown
            )
            dropped = Counter(
                (_protocol(flow),) for flow in shown if flow["verdict"] == "DROPPED" and flow["event_type"]["type"] != 5
            )
            return (
                _scraped(node, "hubble_flows_processed_total", "protocol", "type", "verdict", "source") == by_kind
                and _scraped(node, "hubble_drop_total", "protocol") == dropped
            )

        until(equal, 10, f"metrics of node{number} equal to its flows")
        assert set(_scraped(node, "hubble_lost_events_total", "source").values()) == {0}
