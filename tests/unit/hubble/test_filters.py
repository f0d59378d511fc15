"""Filters over columns want the flows that an obvious reading of each message wants; bad ones are refused by place."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from ciliate.model.event import EventKind
from ciliate.model.reasons import DropReason
from ciliate_hubble.api import flow_pb2 as pb
from ciliate_hubble.columns import Flows
from ciliate_hubble.filters.errors import (
    EXPRESSIONS_MOST,
    FIELDS_MOST,
    FILTERS_MOST,
    LENGTH_MOST,
    TESTS_MOST,
    VALUES_MOST,
    FilterError,
)  # fmt: skip
from ciliate_hubble.filters.fields import MEANINGS
from ciliate_hubble.filters.matcher import ROWS, Matcher

from tests.unit.hubble import oracle
from tests.unit.hubble.node import Node, dns, http, random_records, record

Flags, Type, Workload, Interface = pb.TCPFlags, pb.EventTypeFilter, pb.Workload, pb.NetworkInterface

ENDS: dict[str, list[Any]] = {
    "ip": [
        "10.0.0.1", "10.0.0.0/24", "fd00::/16", "::/0", "0.0.0.0/0", "10.0.1.9/32", "2001:db8::7", "10.0.0.7/8",
        "fd00:1::9/127",
    ],
    "pod": ["web", "default/", "shop/", "/", "/far", "shop/cli", "shop/client", "nowhere", "default/web-1"],
    "label": [
        "app=web", "k8s:app=web", "container:app=far", "reserved:world", "app", "!app", "app!=web", "app in (web, far)",
        "app notin (web),app", "k8s:env", "any:app==client", "env=prod,app=web", "reserved:host", "tier=",
    ],
    "workload": [
        Workload(kind="Deployment"), Workload(name="far"), Workload(name="web", kind="Deployment"), Workload(),
        Workload(kind="Job"),
    ],
    "identity": [256, 257, 300, 0x1000001, 2, 0, 99999],
    "cluster_name": ["default", "east", "west"],
    "port": ["80", "40000", "0", "53", "3", "65535"],
    "fqdn": ["example.com", "*.example.com."],
    "service": ["default/web", "web"],
}  # fmt: skip
VALUES: dict[str, list[Any]] = {
    **{f"{side}_{name}": values for side in ("source", "destination") for name, values in ENDS.items()},
    "source_ip_xlated": ["10.0.0.0/8", "fd00::/8", "192.0.2.7"],
    "verdict": [pb.FORWARDED, pb.DROPPED, pb.REDIRECTED, pb.AUDIT, pb.TRACED, pb.TRANSLATED, pb.ERROR],
    "traffic_direction": [pb.INGRESS, pb.EGRESS, pb.TRAFFIC_DIRECTION_UNKNOWN],
    "ip_version": [pb.IPv4, pb.IPv6, pb.IP_NOT_USED],
    "event_type": [
        Type(type=1), Type(type=4), Type(type=5), Type(type=7), Type(type=129), Type(), Type(type=-3), Type(type=999),
        Type(type=1, match_sub_type=True, sub_type=133), Type(type=4, match_sub_type=True), Type(type=4, sub_type=3),
        Type(type=7, match_sub_type=True, sub_type=2), Type(type=129, match_sub_type=True),
        Type(match_sub_type=True, sub_type=2),
    ],
    "reply": [True, False],
    "drop_reason_desc": [pb.POLICY_DENIED, pb.POLICY_DENY, int(DropReason.PLUGIN), pb.DROP_REASON_UNKNOWN],
    "protocol": ["tcp", "UDP", "icmp", "icmpv4", "ICMPv6", "sctp", "vrrp", "igmp", "dns", "http", "kafka"],
    "tcp_flags": [
        Flags(SYN=True), Flags(SYN=True, ACK=True), Flags(), Flags(NS=True), Flags(CWR=True, ECE=True, PSH=True),
    ],
    "interface": [
        Interface(index=3), Interface(name="lxc1"), Interface(index=0x10001, name="lxc1"), Interface(),
        Interface(name="none"), Interface(name="device3"), Interface(index=3, name="lxc1"),
    ],
    "encrypted": [True, False],
    "uuid": ["no-uuid", "00000000-0000-8000-8000-000000000001"],
    "node_name": ["node1", "default/node1", "NODE*", "def*/", "/node1", "east/node1", "*"],
    "node_labels": ["zone=a", "zone", "!zone"],
    "trace_id": ["ab" * 16, "cd" * 16],
    "ip_trace_id": [0, 5],
    "dns_query": ["shop", r"^web\.", "nothing"],
    "http_status_code": ["404", "200", "4+", "20+", "500"],
    "http_method": ["GET", "get", "POST"],
    "http_path": ["^/api$", "api", "x=1"],
    "http_url": ["x=1", "^http://web", "ftp"],
    "http_header": [pb.HTTPHeader(key="X-Z", value="1"), pb.HTTPHeader(key="x-z", value="1")],
}  # fmt: skip


class Sample:
    """Flows of every kind, as rows and as messages."""

    def __init__(self, seed: int = 0) -> None:
        self.node = Node()
        self.node.tables.node_labels.put(("zone=a",), 300)
        requests = self.node.requests_of(
            http(), http(404), http(200, url="/api?x=1"), dns(), dns(answer=True), http(trace_id="ab" * 16),
            http(200, url="http://[broken"),
        )  # fmt: skip
        self.flows: Flows = np.concatenate([self.node.flows(random_records(600, seed)), requests])
        self.messages = self.node.messages(self.flows)

    def check(self, whitelist: list[pb.FlowFilter], blacklist: list[pb.FlowFilter]) -> int:
        """How many flows are wanted, which is the same by both."""
        mask = Matcher(whitelist, blacklist, self.node.tables).mask(self.flows)
        for flow, found in zip(self.messages, mask.tolist(), strict=True):
            expected = oracle.wanted(flow, whitelist, blacklist)
            assert found == expected, f"{whitelist} less {blacklist} of {flow}"
        return int(mask.sum())


@pytest.fixture(scope="module")
def sample() -> Sample:
    return Sample()


def filter_of(**fields: Any) -> pb.FlowFilter:
    lists: dict[str, Any] = {name: value if isinstance(value, list) else [value] for name, value in fields.items()}
    return pb.FlowFilter(**lists)


def test_every_field_of_flow_filter_has_a_meaning_and_is_tested() -> None:
    fields = {field.name for field in pb.FlowFilter.DESCRIPTOR.fields}
    assert MEANINGS.keys() == fields
    assert VALUES.keys() | {"experimental"} == fields
    assert oracle.FIELDS.keys() | {"experimental"} == fields


@pytest.mark.parametrize("name", VALUES)
def test_each_field_alone_in_both_lists(name: str, sample: Sample) -> None:
    wanted = 0
    values = VALUES[name]
    if name == "uuid":
        values = [*values, sample.messages[5].uuid]
    for value in values:
        wanted += sample.check([filter_of(**{name: value})], [])
        sample.check([], [filter_of(**{name: value})])
    sample.check([filter_of(**{name: values[:2]})], [])
    if name not in ("source_fqdn", "destination_fqdn", "source_service", "destination_service"):
        assert wanted, "no value of this test matches anything: it shows nothing"


@pytest.mark.parametrize("seed", range(60))
def test_filters_of_several_fields(seed: int, sample: Sample) -> None:
    rng = random.Random(seed)

    def one() -> pb.FlowFilter:
        names = rng.sample([n for n in VALUES if not n.startswith("http_")], rng.randint(0, 3))
        return filter_of(**{name: rng.sample(VALUES[name], rng.randint(1, 2)) for name in names})

    sample.check([one() for _ in range(rng.randint(0, 3))], [one() for _ in range(rng.randint(0, 2))])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("source_ip", "10.0.0", "neither an address nor a prefix, as 10.0.0.1"),
        ("destination_ip", "10.0.0.1/33", "neither an address nor a prefix"),
        ("source_ip_xlated", "fe80::1%eth0", "zone"),
        ("source_pod", "", "write prefix, namespace/prefix"),
        ("destination_pod", "a/b/c", "is no name"),
        ("source_service", "a/b/c", "is no name"),
        ("source_fqdn", "exa mple", "is no pattern of a name"),
        ("destination_fqdn", "", "is no pattern of a name"),
        ("source_label", "app in web", "( is wanted instead of 'web'"),
        ("destination_label", "app=a b", "a comma is wanted instead of 'b'"),
        ("node_labels", "=x", "a key is wanted instead of '='"),
        ("source_label", "app,", "a key is wanted instead of its end"),
        ("source_label", "app>x", "'x' is no number"),
        ("source_cluster_name", "", "a cluster's name is empty"),
        ("source_port", "http", "write a number from 0 to 65535"),
        ("destination_port", "65536", "is no port"),
        ("destination_port", "-1", "is no port"),
        ("protocol", "quic", "there are icmp, icmpv4"),
        ("node_name", "a/b/c", "more than one slash"),
        ("node_name", "", "write [cluster/][node]"),
        ("http_status_code", "4", "write three digits"),
        ("http_status_code", "600", "is no status code"),
        ("http_path", "(", "is no regular expression of RE2: missing )"),
        ("http_url", r"(a)\1", "is no regular expression of RE2"),
        ("dns_query", "[", "is no regular expression of RE2"),
    ],
)
def test_a_bad_value_is_refused_by_its_place(name: str, value: str, said: str) -> None:
    good = {"source_cluster_name": "default", "http_status_code": "404", "protocol": "tcp"}.get(name)
    good = good or ("80" if name.endswith("port") else "10.0.0.1" if "_ip" in name else "web")
    bad = filter_of(**{name: [good, value]})
    with pytest.raises(FilterError) as refused:
        Matcher([pb.FlowFilter(), bad], [], Node().tables)
    assert refused.value.path == f"whitelist[1].{name}[1]"
    assert said in str(refused.value)
    with pytest.raises(FilterError, match=rf"blacklist\[0\]\.{name}\[1\]"):
        Matcher([], [bad], Node().tables)


def test_http_filters_need_l7_flows() -> None:
    tables = Node().tables
    fine = filter_of(http_method="GET", event_type=[Type(type=4), Type(type=129)])
    Matcher([fine], [], tables)
    with pytest.raises(FilterError, match=r"whitelist\[0\]\.http_method: needs L7 flows.*add 129"):
        Matcher([filter_of(http_method="GET", event_type=[Type(type=4)])], [], tables)


def test_cel_is_refused_by_name() -> None:
    cel = pb.FlowFilter(experimental=pb.FlowFilter.Experimental(cel_expression=["true"]))
    with pytest.raises(FilterError, match=r"whitelist\[0\]\.experimental\.cel_expression: CEL is not supported"):
        Matcher([cel], [], Node().tables)
    Matcher([pb.FlowFilter(experimental=pb.FlowFilter.Experimental())], [], Node().tables)


@pytest.mark.parametrize(
    ("filters", "path"),
    [
        ([pb.FlowFilter()] * (FILTERS_MOST + 1), "whitelist"),
        ([filter_of(source_identity=list(range(VALUES_MOST + 1)))], "whitelist[0].source_identity"),
        ([filter_of(source_port=["1"] * (VALUES_MOST // 2 + 1))] * 2, "whitelist[1].source_port"),
        ([filter_of(source_pod=["x"] * (TESTS_MOST + 1))], "whitelist[0].source_pod"),
        (
            [filter_of(verdict=[1], reply=[True], uuid=["x"])] * (FIELDS_MOST // 3 + 1),
            f"whitelist[{FIELDS_MOST // 3}].uuid",
        ),
        ([filter_of(source_pod=["a", "x" * (LENGTH_MOST + 1)])], "whitelist[0].source_pod[1]"),
        ([filter_of(http_header=[pb.HTTPHeader(key="x" * 2000)])], "whitelist[0].http_header[0]"),
        ([filter_of(dns_query=["a"] * (EXPRESSIONS_MOST + 1))], "whitelist[0].dns_query"),
    ],
)
def test_huge_filters_are_refused_by_their_place(filters: list[pb.FlowFilter], path: str) -> None:
    with pytest.raises(FilterError, match="more than") as refused:
        Matcher(filters, [], Node().tables)
    assert refused.value.path == path


def test_a_filter_that_costs_more_is_applied_to_fewer_rows_at_once() -> None:
    tables = Node().tables
    assert Matcher([], [], tables).rows == Matcher([filter_of(source_pod=["a"])], [], tables).rows == ROWS
    assert Matcher([filter_of(source_pod=["a"] * TESTS_MOST)], [], tables).rows == 32
    assert Matcher([filter_of(verdict=[1])] * 250, [], tables).rows < ROWS


def test_many_addresses_are_compared_as_few_are(sample: Sample) -> None:
    many = (
        [f"10.{i}.0.0/16" for i in range(1, 200)] + [f"10.0.0.{i}" for i in range(3, 200)] + ["10.0.1.9", "fd00:1::/64"]
    )
    assert sample.check([filter_of(source_ip=many)], [])


def test_ends_that_come_later_are_tested_when_they_come() -> None:
    node = Node()
    matcher = Matcher([filter_of(source_label="app=client")], [], node.tables)
    assert matcher.mask(node.flows(record(2, 0))).tolist() == [True]
    assert matcher.mask(node.flows(record(1, 0, kind=EventKind.TRACE))).tolist() == [False]
    for number in range(3000):
        node.tables.ends.index(node.tables.ends.rows[0]._replace(identity=number + 1))
    assert matcher.mask(node.flows(record(2, 0))).tolist() == [True]
    assert matcher.mask(node.flows(record(9, 1))).tolist() == [False]


def test_a_pattern_that_makes_backtracking_slow_is_not_slow() -> None:
    node = Node()
    matcher = Matcher([filter_of(http_url="(a+)+$")], [], node.tables)
    assert matcher.mask(node.requests_of(http(url="/" + "a" * 5000 + "!"))).tolist() == [False]
