"""A lab of two nodes whose relay wants certificates, with pods, a policy, and traffic of every kind that there is."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml
from ciliate.model.l7 import DnsRecord, HttpHeader, HttpRecord, L7Record, L7Type, L7Verdict
from ciliate_hubble.certificates.names import RELAY_CLIENT_SECRET

from tests.node.hubble.program import Hubble
from tests.node.labs import Lab, Pod, echo, until

SETTINGS = {
    "relay.disable_server_tls": "false",
    "relay.client_certificates": "true",
    "hubble.metrics": '["drop", "flow:sourceContext=pod|reserved-identity", "tcp", "icmp", "port-distribution"]',
    "hubble.metrics_server": ":9965",
}
SERVER_NAME = "relay.hubble-relay.cilium.io"
POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: db}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: web}}]
      toPorts: [{ports: [{port: "5432", protocol: TCP}, {port: "53", protocol: UDP}]}]
"""
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


@dataclass(frozen=True)
class Cluster:
    """The lab, its pods, and the certificate by which its relay knows readers."""

    lab: Lab
    web: Pod
    db: Pod
    other: Pod  # on node2, in another namespace
    folder: Path

    @property
    def relay(self) -> str:
        """The relay's TCP address."""
        address: str = self.lab.status()["relay"]["address"]
        return address

    def certificate(self) -> dict[str, str]:
        """What a reader needs to be believed by the relay and to believe it, as HUBBLE_ variables."""
        secret = self.lab.ciliate("get", "Secret", RELAY_CLIENT_SECRET, "-n", "kube-system", "-o", "yaml").stdout
        data = yaml.safe_load(secret)["data"]
        for name in ("ca.crt", "tls.crt", "tls.key"):
            (self.folder / name).write_bytes(base64.b64decode(data[name]))
        return self.environment(self.folder / "tls.crt", self.folder / "tls.key")

    def environment(self, certificate: Path | None, key: Path | None) -> dict[str, str]:
        """HUBBLE_ variables for the relay, with a client's certificate or none."""
        found = {
            "HUBBLE_SERVER": f"tls://{self.relay}",
            "HUBBLE_TLS_CA_CERT_FILES": str(self.folder / "ca.crt"),
            "HUBBLE_TLS_SERVER_NAME": SERVER_NAME,
        }
        if certificate is not None and key is not None:
            found |= {"HUBBLE_TLS_CLIENT_CERT_FILE": str(certificate), "HUBBLE_TLS_CLIENT_KEY_FILE": str(key)}
        return found

    def hubble(self, *program: str) -> Hubble:
        """A program that asks the relay over mutual TLS, from outside of the nodes."""
        return Hubble(program, self.lab.outside.netns, self.certificate())


def start(lab: Lab, folder: Path) -> Cluster:
    """Pods and the policy in a lab that is up."""
    ports = ["80/tcp", "5432/tcp", "53/udp"]
    web, db, other = (
        lab.run(name, *echo(*ports), namespace=namespace, labels=[f"app={name}"], ports=ports, node=node)
        for name, namespace, node in (("web", "shop", "node1"), ("db", "shop", "node1"), ("other", "fun", "node2"))
    )
    lab.apply(yaml.safe_load(POLICY))
    return Cluster(lab, web, db, other, folder)


def make_traffic(cluster: Cluster) -> None:
    """Allowed and denied, TCP, UDP and ICMP, both families, from inside and outside; and requests that a proxy read."""
    web, db, other = cluster.web, cluster.db, cluster.other
    assert web.reaches(db, 5432)
    assert web.reaches(db, 53, "udp")
    assert not web.reaches(db, 80)
    for address in db.addresses:
        assert not web.pings(address)
    for address in web.addresses:
        assert db.pings(address)
    assert cluster.lab.host(2).connects(other.ipv4, 80)
    assert cluster.lab.host(2).connects(other.ipv6, 80)


def emit_requests(cluster: Cluster) -> subprocess.Popen[str]:
    """Have a stranger's process on node1 tell of requests; it lives until it is ended."""
    path = cluster.folder / "records.json"
    path.write_bytes(msgspec.json.encode(_records(cluster)))
    node = cluster.lab.place.node(1)
    command = [sys.executable, "-m", "tests.node.hubble.emitter", str(node.config), str(path)]
    emitter = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
    assert emitter.stdout is not None
    line = emitter.stdout.readline()
    assert line == "emitted\n", f"the emitter ended: {line}"
    return emitter


def _records(cluster: Cluster) -> list[L7Record]:
    """HTTP requests from web to db and back, DNS queries of web, one of them refused."""
    web, db = cluster.web, cluster.db
    asked = {"source": web.ipv4, "destination": db.ipv4, "source_port": 40000, "destination_port": 5432}
    answered = {"source": db.ipv4, "destination": web.ipv4, "source_port": 5432, "destination_port": 40000}
    post = HttpRecord(
        "POST",
        "http://db/orders/7?x=1",
        "HTTP/1.1",
        headers=(HttpHeader("X-Tier", "gold"), HttpHeader("Accept", "*/*")),
    )
    get = HttpRecord("GET", "http://db/health", "HTTP/2")
    query = {**asked, "source": web.ipv6, "destination": db.ipv6, "destination_port": 53, "protocol": 17}
    name = DnsRecord("db.shop.svc.cluster.local.", ("A", "AAAA"))
    moment = time.time_ns()

    def record(kind: L7Type, ends: dict[str, Any], **fields: Any) -> L7Record:
        known = {"verdict": L7Verdict.FORWARDED, "ingress": True, **fields}
        return L7Record(time=moment, type=kind, **ends, **known)

    return [
        record(L7Type.REQUEST, asked, http=post, trace_id=TRACE_ID),
        record(L7Type.RESPONSE, answered, http=msgspec.structs.replace(post, code=201), latency=3_000_000),
        record(L7Type.REQUEST, asked, http=get, verdict=L7Verdict.DENIED),
        record(L7Type.RESPONSE, answered, http=msgspec.structs.replace(get, code=503), latency=9_000_000),
        record(L7Type.REQUEST, query, dns=name, ingress=False),
        record(L7Type.REQUEST, query, dns=DnsRecord("evil.example.", ("A",)), ingress=False, verdict=L7Verdict.DENIED),
    ]


def settled(hubble: Hubble) -> list[dict[str, Any]]:
    """All flows, oldest first, when no more are coming."""
    found: list[dict[str, Any]] = []

    def quiet() -> bool:
        nonlocal found
        before, found = found, hubble.flows("--all")
        kinds = {flow["event_type"]["type"] for flow in found}
        return {1, 4, 5, 129} <= kinds and [f["uuid"] for f in before] == [f["uuid"] for f in found]

    until(quiet, 20, "flows of all kinds, and then no more")
    return found
