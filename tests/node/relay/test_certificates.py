"""Certificates of the lab's own CA: renewed and rotated under a reader, and nobody without one is answered."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

from ciliate_lab import namespaces

from tests.node.labs import Lab, until
from tests.node.relay.asking import ask
from tests.node.relay.reader import Reader
from tests.node.relay.traffic import Pair


def secret(lab: Lab, name: str) -> dict[str, bytes]:
    """A Secret's data."""
    shown = lab.ciliate("get", "secret", name, "-n", "kube-system", "-o", "json").stdout
    return {key: base64.b64decode(value) for key, value in json.loads(shown)["data"].items()}


def test_a_nodes_server_answers_nobody_without_a_certificate_of_the_relay(cluster: Lab) -> None:
    """Not in plaintext, not with TLS alone, not with another's certificate; with the relay's it does."""
    node = cluster.status()["nodes"][0]
    relay, server = secret(cluster, "hubble-relay-client-certs"), secret(cluster, "hubble-server-certs")

    def answer(certificates: dict[str, bytes]) -> str:
        name = f"{node['name']}.default.hubble-grpc.cilium.io"
        return ask(namespaces.path(cluster.outside.netns), node["hubble"]["address"], name, certificates)

    assert answer(relay) == "answered"
    found = {
        "plaintext": answer({}),
        "no certificate": answer({"ca.crt": relay["ca.crt"]}),
        "a server's": answer(server),
    }
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
