"""Names that certificates and Secrets have, as Cilium gives them."""

from __future__ import annotations

from dataclasses import dataclass

SERVER_DOMAIN = "hubble-grpc.cilium.io"
RELAY_DOMAIN = "hubble-relay.cilium.io"
CA_SECRET = "cilium-ca"
SERVER_SECRET = "hubble-server-certs"
RELAY_CLIENT_SECRET = "hubble-relay-client-certs"
RELAY_SERVER_SECRET = "hubble-relay-server-certs"


@dataclass(frozen=True)
class Leaf:
    """A certificate that the CA signs: its Secret, its one name (CN and SAN), and what it is good for."""

    secret: str
    name: str
    server: bool = False
    client: bool = False


def leaves(cluster: str) -> tuple[Leaf, ...]:
    """All certificates of a cluster."""
    return (
        Leaf(SERVER_SECRET, f"*.{_label(cluster)}.{SERVER_DOMAIN}", server=True),
        Leaf(RELAY_CLIENT_SECRET, f"*.{RELAY_DOMAIN}", client=True),
        Leaf(RELAY_SERVER_SECRET, f"*.{RELAY_DOMAIN}", server=True),
    )


def server_name(node: str, cluster: str) -> str:
    """What a node's server is called in its certificate: `<node>.<cluster>.hubble-grpc.cilium.io`, dots as dashes."""
    return f"{node.replace('.', '-')}.{_label(cluster)}.{SERVER_DOMAIN}"


def _label(cluster: str) -> str:
    return (cluster or "default").replace(".", "-")
