"""Who a flow's ends were stays as it was; what nobody names any more is forgotten."""

from __future__ import annotations

import numpy as np
import pytest
from ciliate.model.base import pack_address
from ciliate.model.endpoint import Endpoint, EndpointPolicy
from ciliate.model.identity import Identity
from ciliate_hubble.columns import Flows
from ciliate_hubble.ends import COLLECT_FROM, End, Ends, Workload
from ciliate_hubble.ingest.join import REMEMBERED, STRANGERS, EndJoin
from ciliate_hubble.names import PodName
from ciliate_hubble.prefixes import Prefixes

from tests.unit.hubble.node import Node, Records, packed, random_records, record


def ends_of(node: Node, flows: Flows, side: str = "source") -> list[End]:
    return [node.tables.ends.rows[index] for index in flows[f"{side}_end"].tolist()]


def test_a_change_of_labels_changes_later_flows_only() -> None:
    node = Node()
    before = node.flows(record(2, 1))
    node.names.put_identity(Identity(id=257, labels=("k8s:app=renamed",)))
    after = node.flows(record(2, 1))
    assert ends_of(node, before)[0].labels == ("k8s:app=client", "k8s:io.kubernetes.pod.namespace=shop")
    assert ends_of(node, after)[0].labels == ("k8s:app=renamed",)
    assert [flow.source.labels[0] for flow in node.messages(before)] == ["k8s:app=client"] * 2


def test_an_endpoint_id_that_another_pod_gets_names_that_one_from_then_on() -> None:
    node = Node()
    before = node.flows(record(2, 1))
    node.names.delete_endpoint(2)
    last = node.flows(record(2, 1))
    node.names.put_endpoint(
        Endpoint(id=2, generation=2, container_id="x", interface="eth0", netns="", namespace="new", pod="next")
    )
    after = node.flows(record(2, 1))
    assert [end.pod for end in (*ends_of(node, before), *ends_of(node, last))] == ["client"] * 4
    assert [end.pod for end in ends_of(node, after)] == ["next"] * 2


def test_a_remote_pod_is_known_by_its_address_and_else_by_its_labels() -> None:
    node = Node()
    known = ends_of(node, node.flows(record(9, 1)))[0]
    assert (known.namespace, known.pod, known.cluster) == ("shop", "far-0", "east")
    assert known.workloads == (Workload("StatefulSet", "far"),)
    elsewhere = ends_of(node, node.flows(record(9, 1, source=packed("10.0.1.77"))))[0]
    assert (elsewhere.namespace, elsewhere.pod) == ("shop", "")
    node.names.put_pod(PodName(("shop", "far-1")), [pack_address("10.0.1.77")], ())
    assert ends_of(node, node.flows(record(9, 1, source=packed("10.0.1.77"))))[0].pod == "far-1"


def test_an_identity_that_no_record_says_is_the_endpoints_or_the_addresss() -> None:
    node = Node()
    flows = node.flows(np.concatenate([record(2, 0, source_identity=0, destination_identity=0) for _ in range(2)]))
    assert flows["source_identity"].tolist() == [257, 257]
    assert flows["destination_identity"].tolist() == [0x1000001] * 2
    node.names.put_policy(
        EndpointPolicy(id=2, generation=1, identity=256, ingress_policy=1, egress_policy=1, revision=2)
    )
    assert node.flows(record(2, 0, source_identity=0))["source_identity"].tolist() == [256]


def test_a_flood_of_unknown_addresses_is_not_looked_up_one_by_one() -> None:
    node = Node()
    flood = np.concatenate([record(2, 0, destination_identity=0)] * (4 * STRANGERS))
    flood["destination"][:, 12:] = np.arange(len(flood), dtype=">u4").view(np.uint8).reshape(-1, 4)
    flows = node.flows(flood)
    assert np.count_nonzero(flows["destination_end"]) == STRANGERS


@pytest.mark.parametrize("seed", range(3))
def test_the_join_gives_what_resolving_one_by_one_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ends = Ends()
    calls = 0

    def resolve(endpoint: int, identity: int, address: bytes) -> tuple[End, list[str]]:
        nonlocal calls
        calls += 1
        return End(identity, endpoint, pod=address.hex()), []

    join = EndJoin(ends, resolve)
    for _ in range(3):
        endpoints = rng.integers(0, 40, 1000).astype(np.uint32)
        identities = rng.choice([1, 2, 256, 300, 65535, 65536, 0x1000001], 1000).astype(np.uint32)
        addresses = np.zeros((1000, 16), np.uint8)
        addresses[:, 15] = rng.integers(0, 60, 1000)
        found = join.join(endpoints, identities, addresses).tolist()
        for index, endpoint, identity, address in zip(found, endpoints, identities, addresses, strict=True):
            remote = not endpoint and 256 <= identity < 65536
            expected = End(int(identity), int(endpoint), pod=address.tobytes().hex() if remote else "")
            assert ends.rows[index] == expected
    assert calls == len(ends) - 1, "each once"
    join.forget_all()
    assert len(join.named()) == 0
    assert calls < REMEMBERED


def test_ends_that_no_flow_names_are_forgotten_and_their_indices_given_anew() -> None:
    ends = Ends()
    indices = [ends.index(End(number)) for number in range(1, COLLECT_FROM)]
    assert ends.due
    kept = np.array(indices[:10], np.uint32)
    life = ends.life
    ends.collect(kept)
    assert len(ends) == 11
    assert ends.life == life + 1
    assert not ends.due
    assert [ends.index(End(number)) for number in range(1, 11)] == indices[:10]
    again = ends.index(End(7, 7))
    assert again in indices[10:]
    assert ends.rows[again] == End(7, 7)
    assert ends.identities[again] == 7


def test_filters_and_encodings_follow_when_an_index_is_given_anew() -> None:
    node = Node()
    node.put(record(2, 1))
    (before, _) = node.messages(node.ring.read(0, 2, 2).flows)
    node.join.forget_all()
    node.tables.ends.collect(np.zeros(0, np.uint32))
    node.names.put_identity(Identity(id=256, labels=("k8s:app=other",)))
    flows = node.flows(record(1, 0))
    assert before.source.pod_name == "client"
    assert [flow.source.pod_name for flow in node.messages(flows)] == ["web-1"]
    assert [list(flow.source.labels) for flow in node.messages(flows)] == [["k8s:app=other"]]


def test_prefixes_answer_by_the_longest() -> None:
    prefixes = Prefixes()
    for prefix, identity in {"0.0.0.0/0": 9, "10.0.0.0/8": 3, "10.1.0.0/16": 4, "10.1.2.3/32": 5, "::/0": 10}.items():
        prefixes.put(prefix, identity)
    expected = {"10.1.2.3": 5, "10.1.9.9": 4, "10.9.9.9": 3, "11.0.0.1": 9, "2001:db8::1": 10}
    assert {address: prefixes.identity(pack_address(address)) for address in expected} == expected
    prefixes.delete("10.1.0.0/16")
    assert prefixes.identity(pack_address("10.1.9.9")) == 3
    assert len(prefixes) == 4


def test_memory_of_ends_is_bounded_by_what_the_ring_names() -> None:
    node = Node(capacity=63)
    ends = node.tables.ends
    for generation in range(3):
        for number in range(0, COLLECT_FROM, 1000):
            records: Records = random_records(10, number)
            node.names.put_identity(Identity(id=257, labels=(f"k8s:n={generation}-{number}",)))
            node.put(records)
    rows = node.ring.rows()
    ends.collect(rows["source_end"], rows["destination_end"], node.join.named())
    assert len(ends) <= 2 * len(rows) + len(node.join.named()) + 1
