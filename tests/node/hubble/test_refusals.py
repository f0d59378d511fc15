"""Bad input: filters that are malformed or huge are refused by field, and readers without a good certificate."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from ciliate_hubble.api.flow_pb2 import FlowFilter
from ciliate_hubble.api.observer_pb2 import GetFlowsRequest
from ciliate_hubble.api.observer_pb2_grpc import ObserverStub
from ciliate_hubble.certificates.names import RELAY_DOMAIN

from tests.node.hubble.certificates import Authority
from tests.node.hubble.cluster import Cluster
from tests.node.hubble.program import Flow, Hubble


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        ("--ip bad", "source_ip"),
        ("--to-ip 10.0.0.0/33", "destination_ip"),
        ("--port foo", "source_port"),
        ("--to-port 65536", "destination_port"),
        ("--label '=='", "source_label"),
        ("--from-fqdn 'a b'", "source_fqdn"),
        ("--node-name 'A*B/c d'", "node_name"),
        ("--protocol carrier-pigeon", "protocol"),
        ("--http-status 9", "http_status_code"),
        ("--http-path '('", "http_path"),
        ("--http-method get -t drop", "http_method"),
        ("--cel-expression 'foo('", "cel_expression"),
        ("--snat-ip x", "source_ip_xlated"),
        ("""--denylist '{"dns_query": ["["]}'""", "dns_query"),
    ],
)
def test_a_malformed_filter_is_refused_by_its_field(flags: str, field: str, hubble: Hubble, flows: list[Flow]) -> None:
    refused = hubble.run(f"observe --all {flags}", check=False)
    assert not refused.stdout.strip()
    assert field in refused.stderr, refused.stderr
    assert refused.returncode != 0 or "NODE_ERROR" in refused.stderr or "Error" in refused.stderr


HUGE: dict[str, Callable[[], FlowFilter]] = {
    "source_ip": lambda: FlowFilter(source_ip=[f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(200_000)]),
    "http_url": lambda: FlowFilter(http_url=["(a|b)*" * 20_000]),
    "source_label": lambda: FlowFilter(source_label=[",".join(f"k{n}=v" for n in range(50_000))]),
}


@pytest.mark.parametrize("field", HUGE)
def test_a_huge_filter_is_refused_at_once_and_hurts_nobody(
    field: str, cluster: Cluster, hubble: Hubble, flows: list[Flow]
) -> None:
    request = GetFlowsRequest(number=5, whitelist=[HUGE[field]()])
    with grpc.insecure_channel(f"unix:{cluster.lab.place.node(1).hubble_socket}") as channel:
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as refused:
            list(ObserverStub(channel).GetFlows(request, timeout=20))
        code, details = refused.value.code(), str(refused.value.details())
    assert time.monotonic() - began < 5
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED or (code is grpc.StatusCode.INVALID_ARGUMENT and field in details)
    assert len(hubble.flows("--last 1")) == 1


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA that nobody knows."""
    return Authority(tmp_path_factory.mktemp("stranger"))


def _refused(cluster: Cluster, hubble: Hubble, certificate: tuple[Path, Path] | None) -> str:
    environment = cluster.environment(*(certificate or (None, None)))
    done = Hubble(hubble.program, hubble.netns, environment).run("observe --last 1 --timeout 2s", check=False)
    assert done.returncode != 0 and not done.stdout
    return done.stderr


def test_a_reader_without_a_certificate_is_refused(cluster: Cluster, hubble: Hubble) -> None:
    assert _refused(cluster, hubble, None)


def test_a_reader_with_a_certificate_of_another_ca_is_refused(
    cluster: Cluster, hubble: Hubble, stranger: Authority
) -> None:
    assert _refused(cluster, hubble, stranger.issue(f"*.{RELAY_DOMAIN}"))


def test_a_reader_whose_certificate_has_expired_is_refused_and_one_with_a_valid_one_is_not(
    cluster: Cluster, hubble: Hubble, flows: list[Flow]
) -> None:
    authority = Authority.of_secret(cluster.lab, cluster.folder / "issued")
    ended = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=1)
    assert _refused(cluster, hubble, authority.issue("expired", until=ended))
    certificate = authority.issue("reader")
    fine = Hubble(hubble.program, hubble.netns, cluster.environment(*certificate))
    assert len(fine.flows("--last 1")) == 1


def test_a_reader_in_plaintext_is_refused(cluster: Cluster, hubble: Hubble) -> None:
    plain = Hubble(hubble.program, hubble.netns, {"HUBBLE_SERVER": cluster.relay})
    assert plain.run("observe --last 1 --timeout 2s", check=False).returncode != 0


def test_a_node_refuses_whoever_is_not_a_relay(cluster: Cluster, hubble: Hubble, stranger: Authority) -> None:
    address = json.loads(hubble.run("list nodes -o json").stdout)[0]["address"]
    certificate, key = stranger.issue("reader")
    environment = cluster.environment(certificate, key) | {
        "HUBBLE_SERVER": f"tls://{address}",
        "HUBBLE_TLS_SERVER_NAME": "node1.default.hubble-grpc.cilium.io",
    }
    refused = Hubble(hubble.program, hubble.netns, environment).run("observe --timeout 2s", check=False)
    assert refused.returncode != 0
    assert not refused.stdout
