"""Certificates of the lab's own CA: renewed and rotated under a reader, and nobody without one is answered."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import grpc
from ciliate_hubble.api.observer_pb2 import GetFlowsRequest
from ciliate_hubble.api.observer_pb2_grpc import ObserverStub

from tests.node.labs import Lab, until
from tests.node.relay.reader import Reader
from tests.node.relay.traffic import Pair


def secret(lab: Lab, name: str) -> dict[str, bytes]:
    """A Secret's data."""
    shown = lab.ciliate("get", "secret", name, "-n", "kube-system", "-o", "json").stdout
    return {key: base64.b64decode(value) for key, value in json.loads(shown)["data"].items()}


def test_a_nodes_server_answers_nobody_without_a_certificate_of_the_relay(cluster: Lab) -> None:
    """Not in plaintext, not with TLS alone, not with another's certificate; with the relay's it does."""
    node = cluster.status()["nodes"][0]
    options = [("grpc.ssl_target_name_override", f"{node['name']}.default.hubble-grpc.cilium.io")]

    def ask(credentials: grpc.ChannelCredentials | None) -> str:
        address = node["hubble"]["address"]
        with (
            grpc.secure_channel(address, credentials, options)
            if credentials is not None
            else grpc.insecure_channel(address)
        ) as channel:
            try:
                list(ObserverStub(channel).GetFlows(GetFlowsRequest(number=1), timeout=5))
            except grpc.RpcError as error:
                return str(error.code().name)
        return "answered"

    relay, server = secret(cluster, "hubble-relay-client-certs"), secret(cluster, "hubble-server-certs")
    asked = {
        "plaintext": None,
        "no certificate": grpc.ssl_channel_credentials(relay["ca.crt"]),
        "a server's": grpc.ssl_channel_credentials(server["ca.crt"], server["tls.key"], server["tls.crt"]),
        "the relay's": grpc.ssl_channel_credentials(relay["ca.crt"], relay["tls.key"], relay["tls.crt"]),
    }
    good = asked.pop("the relay's")
    until(lambda: cluster.outside.inside(lambda: ask(good)) == "answered", 30, "an answer to the relay's certificate")
    found = {name: cluster.outside.inside(lambda c=credentials: ask(c)) for name, credentials in asked.items()}  # type: ignore[misc]
    assert set(found.values()) == {"UNAVAILABLE"}


def test_a_reader_notices_nothing_of_renewed_certificates_and_a_rotated_ca(make_lab: Callable[..., Lab]) -> None:
    """Lives of seconds: each side gets several certificates, of two CAs."""
    lives = {"certificate_validity": 4, "ca_validity": 15, "ca_handover": 2}
    lab = make_lab(*(word for name, value in lives.items() for word in ("--set", f"hubble.{name}={value}")))
    pair = Pair.run(lab, "node1")
    first = secret(lab, "cilium-ca")["ca.key"]
    reader = Reader(lab.status()["relay"]["server"])
    certificates: set[bytes] = set()

    def rotated() -> bool:
        certificates.add(secret(lab, "hubble-relay-client-certs")["tls.crt"])
        reader.has(pair.send(3), 5)
        return len(certificates) > 3 and secret(lab, "cilium-ca")["ca.key"] != first

    try:
        until(rotated, 60, "a new CA that signs")
        assert lab.status()["ready"]
        assert {state for state, _, _ in reader.states} == {"NODE_CONNECTED"}
        assert not reader.breaks
        new = Reader(lab.status()["relay"]["server"])
        new.close()
    finally:
        reader.close()
