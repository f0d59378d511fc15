"""`ciliate hubble watch peers`: which nodes come and go, as a relay is told."""

from __future__ import annotations

from collections.abc import Sequence

from ciliate_hubble.api import peer_pb2, peer_pb2_grpc
from ciliate_hubble.cli.connection import connected
from ciliate_hubble.cli.flags import Given
from ciliate_hubble.cli.settings import server_settings
from ciliate_hubble.cli.texts import enum_name


def watch_peers(given: Sequence[Given]) -> None:
    """Print changes until interrupted. Raises CommandError."""
    with connected(server_settings(given)) as server:
        stub = peer_pb2_grpc.PeerStub(server.channel)
        for change in server.stream(stub.Notify, peer_pb2.NotifyRequest()):
            tls = f" (TLS.ServerName: {change.tls.server_name})" if change.HasField("tls") else ""
            kind = enum_name(peer_pb2.ChangeNotificationType, change.type)
            print(f"{kind:<12} {change.address} {change.name}{tls}", flush=True)
