"""The section `relay`: Cilium's keys of the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ciliate.context import NodePlace
from ciliate.plugin import Section
from msgspec import Meta

_Seconds = Annotated[float, Meta(gt=0, le=3600)]


class RelayConfig(Section):
    """Which nodes, and where the relay listens."""

    peer_service: str | list[str] = ""
    """Who tells which nodes there are: unix:///PATH or HOST:PORT; of several, the first that answers. Empty: the server
    of this machine's node."""
    listen_address: str = ":4245"
    """TCP address for readers; empty: none."""
    socket_path: str = ""
    """Unix socket for readers, plaintext, for root; empty: <run_dir>/hubble/relay.sock."""
    health_listen_address: str = ":4222"
    """TCP address that only tells of health, in plaintext, for probes; empty: none."""
    disable_client_tls: bool = False
    """Connect to nodes in plaintext."""
    disable_server_tls: bool = True
    """Serve the TCP address in plaintext."""
    client_certificates: bool = False
    """With TLS, refuse readers that have no certificate of the CA."""
    tls_hubble_client_cert_file: str = ""
    """The relay's certificate for nodes, its key and their CAs, in files; empty: the Secret that the operator makes."""
    tls_hubble_client_key_file: str = ""
    tls_hubble_server_ca_files: list[str] = []
    tls_relay_server_cert_file: str = ""
    """Its certificate for readers, its key and their CAs; likewise."""
    tls_relay_server_key_file: str = ""
    tls_relay_client_ca_files: list[str] = []
    secrets_namespace: str = "kube-system"
    dial_timeout: _Seconds = 5.0
    """Seconds in which a node must answer a new connection."""
    health_check_interval: _Seconds = 5.0
    health_check_timeout: _Seconds = 2.0
    """Seconds after which a node that does not answer counts as unavailable."""
    sort_buffer_len_max: Annotated[int, Meta(ge=1, le=100_000)] = 100
    """Flows of one node that wait for those of others, in one request."""
    sort_buffer_drain_timeout: _Seconds = 1.0
    """Seconds for which a silent node is waited for."""
    sort_buffer_follow_timeout: _Seconds = 0.25
    """Seconds for which a new flow waits for others' older ones, where a reader follows."""
    error_aggregation_window: _Seconds = 10.0
    """Seconds for which equal errors of nodes are gathered."""

    def __post_init__(self) -> None:
        """Refuse what no single field's type can."""
        client = (self.tls_hubble_client_cert_file, self.tls_hubble_client_key_file, self.tls_hubble_server_ca_files)
        if any(client) and not all(client):
            raise ValueError("tls_hubble_client_cert_file, ..._key_file, tls_hubble_server_ca_files: all, or none")
        if bool(self.tls_relay_server_cert_file) != bool(self.tls_relay_server_key_file):
            raise ValueError("tls_relay_server_cert_file, tls_relay_server_key_file: give both, or none")
        if self.client_certificates and self.tls_relay_server_cert_file and not self.tls_relay_client_ca_files:
            raise ValueError("client_certificates: name the CAs of the readers under tls_relay_client_ca_files")


def socket_path(config: RelayConfig, place: NodePlace) -> Path:
    """Where the Unix socket is."""
    return Path(config.socket_path) if config.socket_path else place.run_dir / "hubble" / "relay.sock"


def peer_services(config: RelayConfig, place: NodePlace) -> list[str]:
    """Who is asked for the nodes, in order."""
    given = config.peer_service
    named = given.replace(",", " ").split() if isinstance(given, str) else given
    return named or [f"unix://{place.run_dir / 'hubble' / 'hubble.sock'}"]
