"""Metrics of flows: what is counted, under which names and labels."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from ciliate.model.base import pack_address
from ciliate.model.l7 import DnsRecord, HttpRecord, L7Record, L7Type, L7Verdict
from ciliate_hubble.columns import FLOW, Flows
from ciliate_hubble.config import HubbleConfig
from ciliate_hubble.ends import End, Workload
from ciliate_hubble.losses import LossSource
from ciliate_hubble.metrics.collector import FlowMetrics
from ciliate_hubble.metrics.keys import UNKNOWN, KeyTable
from ciliate_hubble.metrics.options import OptionError, parse_metric, parse_metrics
from ciliate_hubble.metrics.serving import GONE_AFTER, forget_gone
from ciliate_hubble.tables import FlowTables
from hypothesis import given, settings
from hypothesis import strategies as st

Pod = tuple[str, str]
Series = dict[tuple[tuple[str, str], ...], float]


def _tables() -> FlowTables:
    tables = FlowTables("n1")
    for end in (
        End(1000, 1, "shop", "web-1", ("k8s:app=web", "k8s:io.x=y"), (Workload("Deployment", "web"),)),
        End(
            1001, 2, "shop", "db-1", ("k8s:app.kubernetes.io/name=data", "k8s:app=db"), (Workload("StatefulSet", "db"),)
        ),
        End(2, 0, labels=("reserved:world",)),
        End(7, 0, labels=("reserved:host", "reserved:kube-apiserver")),
    ):
        tables.ends.index(end)
    return tables


WEB, DB, WORLD, APISERVER = 1, 2, 3, 4
TRACE, DROP, POLICY, L7 = 4, 1, 5, 129


def _flows(*rows: dict[str, Any]) -> Flows:
    flows = np.zeros(len(rows), FLOW)
    usual = {"kind": TRACE, "verdict": 1, "protocol": 6, "family": 4, "source_end": WEB, "destination_end": DB}
    for number, row in enumerate(rows):
        for name, value in (usual | {"reply": 1, "direction": 1, "destination_port": 80} | row).items():
            flows[name][number] = value
    return flows


def _metrics(*listed: str, tables: FlowTables | None = None) -> FlowMetrics:
    lost = {LossSource.HUBBLE_RING_BUFFER: 3, LossSource.PERF_EVENT_RING_BUFFER: 0}
    return FlowMetrics(parse_metrics(list(listed)), tables or _tables(), lambda: lost)


def _series(metrics: FlowMetrics, name: str) -> Series:
    """Series of a counter by their labels, those with a value."""
    found = {}
    for family in metrics.collect():
        for sample in family.samples:
            if sample.name == name:
                found[tuple(sorted((key, value) for key, value in sample.labels.items() if value))] = sample.value
    return found


def _labels(**labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def test_flows_are_counted_by_protocol_type_and_verdict() -> None:
    metrics = _metrics("flow")
    flows = _flows({}, {}, {"point": 3, "protocol": 17}, {"kind": DROP, "verdict": 2, "reason": 133}, {"kind": POLICY})
    metrics.sink(flows)
    metrics.sink(flows[:1])
    assert _series(metrics, "hubble_flows_processed_total") == {
        _labels(protocol="TCP", type="Trace", subtype="to-endpoint", verdict="FORWARDED"): 3,
        _labels(protocol="UDP", type="Trace", subtype="to-stack", verdict="FORWARDED"): 1,
        _labels(protocol="TCP", type="Drop", verdict="DROPPED"): 1,
        _labels(protocol="TCP", type="PolicyVerdict", verdict="FORWARDED"): 1,
    }


def test_a_drop_is_counted_once_by_its_reason_though_a_policy_verdict_tells_it_too() -> None:
    metrics = _metrics("drop")
    dropped = {"verdict": 2, "reason": 133}
    metrics.sink(
        _flows({}, dropped | {"kind": DROP}, dropped | {"kind": POLICY}, dropped | {"kind": DROP, "reason": 240})
    )
    assert _series(metrics, "hubble_drop_total") == {
        _labels(protocol="TCP", reason="POLICY_DENIED"): 1,
        _labels(protocol="TCP", reason="UNRESOLVED_ADDRESS"): 1,
    }


def test_flags_that_begin_or_end_a_connection_are_counted_by_family() -> None:
    metrics = _metrics("tcp")
    syn, fin, rst, ack = 2, 1, 4, 16
    rows = [{"tcp_flags": flags} for flags in (syn, syn, syn | ack, fin | ack, rst, ack, fin | rst)]
    metrics.sink(_flows(*rows, {"tcp_flags": syn, "family": 6}, {"tcp_flags": syn, "kind": DROP, "verdict": 2}))
    assert _series(metrics, "hubble_tcp_flags_total") == {
        _labels(flag="SYN", family="IPv4"): 2,
        _labels(flag="SYN-ACK", family="IPv4"): 1,
        _labels(flag="FIN", family="IPv4"): 2,
        _labels(flag="RST", family="IPv4"): 2,
        _labels(flag="SYN", family="IPv6"): 1,
    }


def test_icmp_is_counted_by_its_name_for_both_families() -> None:
    metrics = _metrics("icmp")
    four, six = {"protocol": 1, "destination_port": 0}, {"protocol": 58, "family": 6, "destination_port": 0}
    metrics.sink(
        _flows(four | {"source_port": 8}, four | {"source_port": 3, "destination_port": 1}, six | {"source_port": 128})
    )
    assert _series(metrics, "hubble_icmp_total") == {
        _labels(family="IPv4", type="EchoRequest"): 1,
        _labels(family="IPv4", type="DestinationUnreachable(Host)"): 1,
        _labels(family="IPv6", type="EchoRequest"): 1,
    }


def test_ports_are_those_of_requests_that_were_let_through() -> None:
    metrics = _metrics("port-distribution")
    metrics.sink(
        _flows({}, {"protocol": 17, "destination_port": 53}, {"reply": 2, "destination_port": 40000}, {"verdict": 2})
    )
    assert _series(metrics, "hubble_port_distribution_total") == {
        _labels(protocol="TCP", port="80"): 1,
        _labels(protocol="UDP", port="53"): 1,
    }


@pytest.mark.parametrize(("switches", "expected"), [("", 1), (":any-drop", 2), (":syn-only", 0)])
def test_flows_to_the_world_follow_their_switches(switches: str, expected: int) -> None:
    metrics = _metrics(f"flows-to-world{switches}")
    world = {"destination_end": WORLD, "tcp_flags": 16}
    metrics.sink(_flows({}, world, world | {"reply": 2}, world | {"verdict": 2, "kind": DROP, "reason": 169}))
    assert sum(_series(metrics, "hubble_flows_to_world_total").values()) == expected


def test_flows_to_the_world_have_the_port_where_asked_for() -> None:
    metrics = _metrics("flows-to-world:port")
    metrics.sink(_flows({"destination_end": WORLD, "destination_port": 443}))
    assert _series(metrics, "hubble_flows_to_world_total") == {
        _labels(protocol="TCP", verdict="FORWARDED", port="443"): 1
    }


def test_policy_verdicts_are_counted_by_direction_match_and_action() -> None:
    metrics = _metrics("policy")
    metrics.sink(_flows({"kind": POLICY, "match": 2}, {"kind": POLICY, "verdict": 2, "direction": 2}, {}))
    assert _series(metrics, "hubble_policy_verdicts_total") == {
        _labels(direction="ingress", match="l3-l4", action="forwarded"): 1,
        _labels(direction="egress", match="none", action="dropped"): 1,
    }


@pytest.mark.parametrize(
    ("context", "web", "db", "world", "apiserver"),
    [
        ("identity", "k8s:app=web,k8s:io.x=y", "k8s:app.kubernetes.io/name=data,k8s:app=db", "reserved:world", None),
        ("namespace", "shop", "shop", "", ""),
        ("pod", "shop/web-1", "shop/db-1", "", ""),
        ("pod-name", "web-1", "db-1", "", ""),
        ("ip", "10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("reserved-identity", "", "", "reserved:world", "reserved:kube-apiserver"),
        ("workload", "shop/web", "shop/db", "", ""),
        ("workload-name", "web", "db", "", ""),
        ("app", "web", "data", "", ""),
        ("workload-name|reserved-identity", "web", "db", "reserved:world", "reserved:kube-apiserver"),
        ("dns|pod-name|ip", "web-1", "db-1", "10.0.0.1", "10.0.0.1"),
    ],
)
def test_a_context_shows_the_first_of_its_alternatives_that_is_not_empty(
    context: str, web: str, db: str, world: str, apiserver: str | None
) -> None:
    for end, expected in ((WEB, web), (DB, db), (WORLD, world), (APISERVER, apiserver)):
        metrics = _metrics(f"flow:sourceContext={context};destinationContext={context}")
        flows = _flows({"source_end": end, "destination_end": end})
        for side in ("source", "destination"):
            flows[side][0] = list(pack_address("10.0.0.1"))
        metrics.sink(flows)
        (labels,) = _series(metrics, "hubble_flows_processed_total")
        if expected is not None:
            assert (dict(labels).get("source", ""), dict(labels).get("destination", "")) == (expected, expected)


def test_a_context_of_one_direction_comes_before_the_general_one() -> None:
    metrics = _metrics("flow:sourceContext=pod-name;sourceEgressContext=app")
    metrics.sink(_flows({"direction": 1}, {"direction": 2}))
    assert {dict(labels)["source"] for labels in _series(metrics, "hubble_flows_processed_total")} == {"web-1", "web"}


def test_listed_labels_stand_beside_each_other_even_if_empty() -> None:
    listed = "source_ip,source_pod,source_namespace,source_workload,source_workload_kind,source_app,destination_pod"
    metrics = _metrics(f"drop:labelsContext={listed},traffic_direction")
    flows = _flows({"kind": DROP, "verdict": 2, "reason": 133, "family": 6, "destination_end": WORLD})
    flows["source"][0] = list(pack_address("fd00::1"))
    metrics.sink(flows)
    (sample,) = (s for family in metrics.collect() for s in family.samples if s.name == "hubble_drop_total")
    assert sample.labels == {
        **{"reason": "POLICY_DENIED", "protocol": "TCP", "source_ip": "fd00::1", "source_pod": "web-1"},
        **{"source_namespace": "shop", "source_workload": "web", "source_workload_kind": "Deployment"},
        **{"source_app": "web", "destination_pod": "", "traffic_direction": "ingress"},
    }


def test_an_index_that_is_given_to_another_end_is_another_series() -> None:
    tables = _tables()
    metrics = _metrics("flow:sourceContext=pod-name", tables=tables)
    metrics.sink(_flows({}))
    tables.ends.collect(np.array([DB, WORLD, APISERVER]))
    assert tables.ends.index(End(1002, 3, "shop", "late-1")) == WEB
    metrics.sink(_flows({}))
    assert {dict(labels)["source"] for labels in _series(metrics, "hubble_flows_processed_total")} == {
        "web-1",
        "late-1",
    }


def _record(kind: L7Type, **fields: Any) -> L7Record:
    ends = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": 1, "destination_port": 2, "ingress": True}
    return L7Record(time=1, type=kind, verdict=L7Verdict.FORWARDED, **{**ends, **fields})


def _requests(tables: FlowTables, *records: L7Record) -> Flows:
    """Flows of records: an answer's source is who answers."""
    rows: list[dict[str, Any]] = []
    for record in records:
        answer = record.type == L7Type.RESPONSE
        ends = {"source_end": DB, "destination_end": WEB, "reply": 2} if answer else {}
        rows.append({"kind": L7, "l7": tables.l7.add(record, len(rows)), **ends})
    return _flows(*rows)


def test_dns_is_counted_by_query_and_answer_from_the_askers_side() -> None:
    tables = _tables()
    metrics = _metrics("dns:query;ignoreAAAA;sourceContext=pod-name", tables=tables)
    asked = DnsRecord("a.example.", ("A",))
    answered = DnsRecord("a.example.", ("A",), 0, ("1.1.1.1", "1.1.1.2"), ("b.",), 5, ("CNAME", "A"))
    six = DnsRecord("a.example.", ("AAAA",))
    metrics.sink(
        _requests(
            tables,
            *(_record(L7Type.REQUEST, dns=dns) for dns in (asked, six)),
            *(_record(L7Type.RESPONSE, dns=dns) for dns in (answered, DnsRecord("no.", ("A",), 3))),
        )
    )
    web = {"source": "web-1", "qtypes": "A"}
    assert _series(metrics, "hubble_dns_queries_total") == {_labels(query="a.example.", ips_returned="0", **web): 1}
    assert _series(metrics, "hubble_dns_responses_total") == {
        _labels(query="a.example.", rcode="No Error", ips_returned="2", **web): 1,
        _labels(query="no.", rcode="Non-Existent Domain", ips_returned="0", **web): 1,
    }
    assert sum(_series(metrics, "hubble_dns_response_types_total").values()) == 2


def test_http_requests_are_counted_by_their_answers_with_their_time() -> None:
    tables = _tables()
    metrics = _metrics("httpV2:destinationContext=pod-name", "flow", tables=tables)
    answer = HttpRecord("GET", "/x", "HTTP/1.1", 200)
    records = (
        _record(L7Type.REQUEST, http=HttpRecord("GET", "/x", "HTTP/1.1")),
        _record(L7Type.RESPONSE, http=answer, latency=30_000_000),
    )
    metrics.sink(_requests(tables, *records))
    common = {"method": "GET", "reporter": "server", "destination": "db-1"}
    assert _series(metrics, "hubble_http_requests_total") == {_labels(protocol="HTTP/1.1", status="200", **common): 1}
    buckets = _series(metrics, "hubble_http_request_duration_seconds_bucket")
    assert [buckets[_labels(le=bound, **common)] for bound in ("0.025", "0.05", "+Inf")] == [0, 1, 1]
    assert _series(metrics, "hubble_http_request_duration_seconds_sum") == {_labels(**common): 0.03}
    assert _labels(protocol="HTTP", type="L7", subtype="HTTP", verdict="FORWARDED") in _series(
        metrics, "hubble_flows_processed_total"
    )


def test_http_in_its_first_form_counts_requests_and_answers_apart() -> None:
    tables = _tables()
    metrics = _metrics("http", tables=tables)
    answer = HttpRecord("GET", "/x", "HTTP/1.1", 404)
    records = (_record(L7Type.REQUEST, http=HttpRecord("GET", "/x", "HTTP/1.1")), _record(L7Type.RESPONSE, http=answer))
    metrics.sink(_requests(tables, *records))
    assert _series(metrics, "hubble_http_requests_total") == {
        _labels(method="GET", protocol="HTTP/1.1", reporter="server"): 1
    }
    assert _series(metrics, "hubble_http_responses_total") == {
        _labels(method="GET", status="404", reporter="server"): 1
    }


def test_losses_are_counted_by_source_in_small_letters() -> None:
    assert _series(_metrics("drop"), "hubble_lost_events_total") == {
        _labels(source="hubble_ring_buffer"): 3,
        _labels(source="perf_event_ring_buffer"): 0,
    }


@pytest.mark.parametrize("labels", ["sourceContext=pod|ip", "labelsContext=source_namespace,source_pod"])
def test_series_of_a_pod_that_is_gone_are_dropped_a_minute_later(labels: str) -> None:
    metrics = _metrics(f"flow:{labels}")
    flows = _flows({}, {"source_end": DB})
    metrics.sink(flows)
    since: dict[Pod, float] = {}
    gone = {("shop", "web-1")}.intersection
    assert metrics.pods() == {("shop", "web-1"), ("shop", "db-1")}
    forget_gone(metrics, gone, since, 100.0)
    forget_gone(metrics, gone, since, 100.0 + GONE_AFTER - 1)
    assert len(_series(metrics, "hubble_flows_processed_total")) == 2
    forget_gone(metrics, gone, since, 100.0 + GONE_AFTER)
    assert metrics.pods() == {("shop", "db-1")}
    metrics.sink(flows)
    assert sorted(_series(metrics, "hubble_flows_processed_total").values()) == [1, 2]


def test_series_that_look_like_a_pods_but_are_a_workloads_stay() -> None:
    metrics = _metrics("flow:sourceContext=workload|pod;destinationContext=pod|identity")
    metrics.sink(_flows({"destination_end": WORLD}))
    assert metrics.pods() == set()
    assert {dict(labels)["source"] for labels in _series(metrics, "hubble_flows_processed_total")} == {"shop/web"}


def test_a_pod_that_comes_back_keeps_its_series() -> None:
    metrics = _metrics("flow:sourceContext=pod")
    metrics.sink(_flows({}))
    since: dict[Pod, float] = {}
    forget_gone(metrics, lambda pods: pods, since, 0.0)
    forget_gone(metrics, lambda _: set(), since, 30.0)
    forget_gone(metrics, lambda pods: pods, since, GONE_AFTER)
    assert metrics.pods() == {("shop", "web-1")}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("flows", "'flows' is no metric; there are dns, drop, flow,"),
        ("kafka", "'kafka' is no metric"),
        ("flow:sourceContext=pods", "flow: sourceContext: 'pods' is none of identity, namespace, pod"),
        ("flow:labelsContext=source_pod,nope", "flow: labelsContext: 'nope' is none of source_ip"),
        ("flow:any-drop", "flow: 'any-drop' is no option; there are sourceContext"),
        ("dns:query=false", "'query=false' is no option"),
    ],
)
def test_a_wrong_metric_is_refused_by_name(text: str, problem: str) -> None:
    with pytest.raises(OptionError, match=problem):
        parse_metric(text)
    with pytest.raises(ValueError, match=f"metrics: .*{problem}"):
        HubbleConfig(metrics=[text])


def test_metrics_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(OptionError, match="http and httpV2"):
        parse_metrics(["http", "httpV2"])
    with pytest.raises(OptionError, match="flow is listed twice"):
        parse_metrics(["flow", "flow:sourceContext=pod"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**64 - 2), min_size=1, max_size=300), min_size=1, max_size=5))
def test_a_table_of_keys_finds_what_was_put_and_nothing_else(batches: list[list[int]]) -> None:
    table, known = KeyTable(), dict[int, int]()
    for batch in batches:
        keys = np.array(batch, np.uint64)
        assert table.find(keys).tolist() == [known.get(key, UNKNOWN) for key in batch]
        new = sorted(set(batch) - set(known))
        known |= {key: len(known) + place for place, key in enumerate(new)}
        table.put(np.array(new, np.uint64), [known[key] for key in new])
        assert table.find(keys).tolist() == [known[key] for key in batch]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_counting_by_columns_is_counting_one_by_one(seed: int, batches: int) -> None:
    random, tables = np.random.default_rng(seed), _tables()
    metrics = _metrics(
        "flow:sourceContext=app|ip;destinationContext=pod;labelsContext=traffic_direction",
        "port-distribution",
        tables=tables,
    )
    counted: Counter[tuple[Any, ...]] = Counter()
    for _ in range(batches):
        flows = _flows(*[{}] * 200)
        for name, values in (
            ("protocol", (6, 17, 1, 99)),
            ("verdict", (1, 2)),
            ("direction", (0, 1, 2)),
            ("point", (0, 3, 5)),
        ):
            flows[name] = random.choice(values, 200)
        flows["source_end"], flows["destination_end"] = random.integers(0, 5, 200), random.integers(0, 5, 200)
        flows["source"][:, :12] = list(pack_address("0.0.0.0"))[:12]
        flows["source"][:, 15] = random.integers(0, 3, 200)
        metrics.sink(flows)
        for flow in flows:
            source, destination = (tables.ends.rows[int(flow[side])] for side in ("source_end", "destination_end"))
            app = {"web-1": "web", "db-1": "data"}.get(source.pod) or f"0.0.0.{flow['source'][15]}"
            pod = f"{destination.namespace}/{destination.pod}" if destination.pod else ""
            counted[
                int(flow["protocol"]), int(flow["verdict"]), int(flow["point"]), int(flow["direction"]), app, pod
            ] += 1
    assert sorted(_series(metrics, "hubble_flows_processed_total").values()) == sorted(counted.values())
