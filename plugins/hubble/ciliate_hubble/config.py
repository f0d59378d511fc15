"""The section `hubble`: Cilium's keys of the same names, without their prefix `hubble-`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from ciliate.context import NodePlace
from ciliate.plugin import Section
from msgspec import Meta

from ciliate_hubble.metrics.options import OptionError, parse_metrics

CAPACITY_MOST = (1 << 20) - 1
"""Flows that the ring holds at most: 192 bytes each, so 200 MB."""

DAY = 86_400.0
_Validity = Annotated[float, Meta(gt=0)]
_Interval = Annotated[float, Meta(gt=0, le=3600)]


class HubbleConfig(Section):
    """What is kept of flows, and where they are served."""

    socket_path: str = ""
    """Unix socket, plaintext, for root; empty: <run_dir>/hubble/hubble.sock."""
    listen_address: str = ":4244"
    """TCP address for relays, with TLS; empty: none."""
    disable_tls: bool = False
    """Serve the TCP address in plaintext, to anybody."""
    tls_cert_file: str = ""
    """The server's certificate, its key and the CAs of clients, in files; empty: the Secret that the operator makes."""
    tls_key_file: str = ""
    tls_client_ca_files: list[str] = []
    prefer_ipv6: bool = False
    """Which of a node's addresses relays are told to connect to."""
    secrets_namespace: str = "kube-system"
    """Where the Secrets with certificates are: cilium-ca, hubble-server-certs, and those of the relay."""
    make_certificates: bool = True
    """The operator makes the Secrets and renews them; if not, somebody else does."""
    certificate_validity: _Validity = 365 * DAY
    """Seconds; a certificate is renewed when a third of them is left. The CA's likewise."""
    ca_validity: _Validity = 3 * 365 * DAY
    ca_handover: _Validity = DAY
    """Seconds for which a new CA is trusted before it signs: by then every process must have read it."""
    event_buffer_capacity: Annotated[int, Meta(ge=1, le=CAPACITY_MOST)] = 4095
    """Flows that are kept: a power of two less one, up to CAPACITY_MOST (Cilium's limit is 65,535)."""
    event_queue_size: Annotated[int, Meta(ge=8192, le=1 << 22)] = 262_144
    """Records that may wait to be made into flows; what comes above is lost, and told."""
    agent_event_capacity: Annotated[int, Meta(ge=1, le=1 << 20)] = 4095
    """Agent events that are kept (GetAgentEvents)."""
    lost_event_send_interval: _Interval = 1.0
    """Seconds between two messages of one source of losses."""
    metrics: list[str] = []
    """What is counted of flows, with labels, as `drop` or `flow:sourceContext=pod`; see README.md."""
    metrics_server: str = ""
    """host:port at which this process serves its metrics, as :9965; empty: only where `metrics.listen` says."""
    network_policy_correlation_enabled: bool = True
    """Name the policies behind each flow."""
    remote_pods: Literal["pods", "ciliumendpoints", "none"] = "pods"
    """The objects that say which pod of another node has an address: Pods also have their workloads."""
    redact_enabled: bool = False
    """Hide parts of L7 records; without one of the two lists that is the value of every header."""
    redact_http_urlquery: bool = False
    """Hide a URL's query and fragment."""
    redact_http_userinfo: bool = True
    """Hide the password in a URL."""
    redact_http_headers_allow: list[str] = msgspec.field(default_factory=list)
    """The only headers whose values are shown."""
    redact_http_headers_deny: list[str] = msgspec.field(default_factory=list)
    """The only headers whose values are hidden; not with redact_http_headers_allow."""

    def __post_init__(self) -> None:
        """Refuse what no single field's type can."""
        files = (self.tls_cert_file, self.tls_key_file, self.tls_client_ca_files)
        if any(files) and not all(files):
            raise ValueError("tls_cert_file, tls_key_file, tls_client_ca_files: give all of them, or none")
        try:
            parse_metrics(self.metrics)
        except OptionError as error:
            raise ValueError(f"metrics: {error}") from error
        if self.metrics_server and not self.metrics_server.rpartition(":")[2].isdigit():
            raise ValueError(f"metrics_server: {self.metrics_server!r} must be host:port, as :9965")
        capacity = self.event_buffer_capacity
        if capacity & (capacity + 1):
            below = (1 << capacity.bit_length() - 1) - 1
            above = (1 << capacity.bit_length()) - 1
            raise ValueError(f"event_buffer_capacity: {capacity} must be a power of two less one: {below} or {above}")
        if self.redact_http_headers_allow and self.redact_http_headers_deny:
            raise ValueError("redact_http_headers_allow and redact_http_headers_deny: give one of them")


def socket_path(config: HubbleConfig, place: NodePlace) -> Path:
    """Where the Unix socket is. Not beside the processes' own: `hubble.sock` there is this process's API."""
    return Path(config.socket_path) if config.socket_path else place.run_dir / "hubble" / "hubble.sock"
