"""A channel to a Hubble server: the one that is named, else the cluster's relay, else localhost:4245."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import grpc
import msgspec
from ciliate.cli.cluster import CLUSTERS, LocalCluster, find_cluster
from ciliate.cli.dispatch import CommandError
from ciliate.config import core_config, load_settings
from ciliate.places import node_place

from ciliate_hubble.cli.flags import UsageError
from ciliate_hubble.cli.settings import ServerSettings
from ciliate_hubble.relay.config import RelayConfig, socket_path

DEFAULT_SERVER = "localhost:4245"
_MESSAGE_MOST = 64 << 20
T = TypeVar("T")


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    name: str
    channel: grpc.Channel
    settings: ServerSettings

    def ask(self, method: Callable[..., T], request: object) -> T:
        """The one answer to a call."""
        return method(request, timeout=self.settings.request_timeout, metadata=self._metadata)

    def stream(self, method: Callable[..., T], request: object) -> T:
        """The answers to a call, for as long as they come."""
        return method(request, metadata=self._metadata)

    @property
    def _metadata(self) -> list[tuple[str, str]]:
        user, password = self.settings.user, self.settings.password
        if not user and not password:
            return []
        return [("authorization", f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}")]


@contextmanager
def connected(settings: ServerSettings) -> Iterator[Server]:
    """A channel to the server; errors of calls inside become CommandErrors. Raises CommandError."""
    settings = settings if settings.server else _found(settings)
    channel = _channel(settings)
    try:
        grpc.channel_ready_future(channel).result(settings.timeout)
        yield Server(settings.server, channel, settings)
    except grpc.FutureTimeoutError as error:
        seconds = f"{settings.timeout:g} s"
        raise CommandError(f"{settings.server} can't be reached within {seconds}{_hint(settings)}") from error
    except grpc.RpcError as error:
        raise CommandError(f"{settings.server}: {_words(error)}") from error
    finally:
        channel.close()


def _found(settings: ServerSettings) -> ServerSettings:
    """The relay of the cluster that commands are about; on a machine without one, what listens at the usual port."""
    try:
        cluster = find_cluster(settings.lab)
    except CommandError:
        return replace(settings, server=DEFAULT_SERVER)
    if not isinstance(cluster, LocalCluster):  # its relay is a service there, forwarded to this port
        return replace(settings, server=DEFAULT_SERVER)
    socket = relay_socket(cluster)
    if socket.exists():
        return replace(settings, server=f"unix://{socket}")
    if settings.lab_named or cluster.file.is_relative_to(CLUSTERS):
        raise CommandError(f"cluster {cluster.name} has no relay: {socket} is missing; name a server with --server")
    return replace(settings, server=DEFAULT_SERVER)


def relay_socket(cluster: LocalCluster) -> Path:
    """Where a cluster's relay serves root of this machine."""
    settings = load_settings(cluster.file)
    config = msgspec.convert(settings.tree.get("relay", {}), RelayConfig)
    return socket_path(config, node_place(core_config(settings), "relay", "relay"))


def _words(error: grpc.RpcError) -> str:
    if not isinstance(error, grpc.Call):
        return str(error)
    return f"{error.details()} ({error.code().name})"


def _hint(settings: ServerSettings) -> str:
    if _target(settings.server)[1] or settings.tls:
        return "; is it running, and do its certificate and yours come from authorities that know each other?"
    return "; is it running, and does it expect TLS (tls://)?"


def _target(server: str) -> tuple[str, bool]:
    """gRPC's target, and whether the scheme says TLS."""
    scheme, separator, rest = server.partition("://")
    if not separator:
        return server, False
    match scheme:
        case "tls":
            return rest, True
        case "unix":
            return f"unix:{rest}", False
        case "passthrough":
            return rest.lstrip("/"), False
        case "dns":
            return f"dns:///{rest.lstrip('/')}", False
    raise UsageError(f"--server: {server!r}: use host:port, tls://host:port or unix://path")


def _channel(settings: ServerSettings) -> grpc.Channel:
    target, tls = _target(settings.server)
    options: list[tuple[str, object]] = [("grpc.max_receive_message_length", _MESSAGE_MOST)]
    if not (tls or settings.tls or settings.ca_files or settings.cert_file or settings.key_file):
        return grpc.insecure_channel(target, options)
    if (settings.cert_file is None) != (settings.key_file is None):
        raise UsageError("--tls-client-cert-file and --tls-client-key-file go together")
    roots, name = b"".join(map(_pem, settings.ca_files)) or None, settings.server_name
    if settings.insecure:
        roots, name = _presented(target, name, settings.timeout)
    if name:
        options.append(("grpc.ssl_target_name_override", name))
    key = _pem(settings.key_file) if settings.key_file else None
    chain = _pem(settings.cert_file) if settings.cert_file else None
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(roots, key, chain), options)


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error


def _presented(target: str, name: str, timeout: float) -> tuple[bytes, str]:
    """The certificate that a server presents, unverified, and a name that is in it."""
    from cryptography import x509

    host, _, port = target.rpartition(":")
    try:
        pem = ssl.get_server_certificate((host.strip("[]"), int(port)), timeout=timeout)
    except (OSError, ValueError) as error:
        raise CommandError(f"{target} presents no certificate: {error}") from error
    names = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    found: Sequence[str] = names.value.get_values_for_type(x509.DNSName)
    return pem.encode(), found[0].replace("*", "any") if found else name
