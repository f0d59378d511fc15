"""All of `ciliate relay`, put together."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
from ciliate import __version__
from ciliate.api.routes import Request, Route
from ciliate.context import Context

from ciliate_hubble.api.relay_pb2 import NodeState
from ciliate_hubble.certificates.credentials import server_credentials
from ciliate_hubble.certificates.material import FileKeeper, Files, Keeper, SecretKeeper
from ciliate_hubble.certificates.names import RELAY_CLIENT_SECRET, RELAY_SERVER_SECRET
from ciliate_hubble.relay.channels import Checks
from ciliate_hubble.relay.config import RelayConfig, peer_services, socket_path
from ciliate_hubble.relay.metrics import RelayMetrics
from ciliate_hubble.relay.observer import NAME, RelayObserver
from ciliate_hubble.relay.peers import PeerFollower
from ciliate_hubble.relay.pool import Pool
from ciliate_hubble.server import Listener, Server, Servicer

VERSION = f"hubble-relay v{__version__}"


class RelayProcess:
    """From the peer service to those who read."""

    def __init__(self, context: Context) -> None:
        config: RelayConfig = context.config
        self._context = context
        checks = Checks(config.dial_timeout, config.health_check_interval, config.health_check_timeout)
        keeper = None if config.disable_client_tls else self._client_keeper(config)
        self._pool = Pool(keeper, checks, context.log)
        services = peer_services(config, context.node)
        self._follower = PeerFollower(
            services, context.node.cluster, keeper, checks, self._pool, context.health, context.log
        )
        metrics = RelayMetrics(context.metrics, self._pool)
        observer = RelayObserver(self._pool, self._follower.lacking, config, VERSION, context.node.name, metrics)

        def add(server: grpc.aio.Server) -> None:
            server.add_generic_rpc_handlers((observer.handler(),))

        self._server = Server([Servicer(NAME, add)], self._listeners(config), context.health)
        health = [Listener(config.health_listen_address, "relay.health_listen_address")]
        self._probes = Server([], health if config.health_listen_address else [], context.health)

    def start(self) -> None:
        """Start the tasks."""
        for name, task in (
            ("peer-service", self._follower.run),
            ("connections", self._pool.run),
            ("server", self._server.run),
            ("probes", self._probes.run),
            ("health", self._tell_health),
        ):
            self._context.spawn(name, task)

    def routes(self) -> list[Route]:
        """What the process's own API tells."""
        return [Route("GET", "/peers", self._peers, "Nodes that the relay knows, and whether it is connected to them.")]

    async def _peers(self, _: Request) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "address": connection.peer.address,
                "tls": connection.peer.server_name,
                "state": NodeState.Name(connection.state),
                "reason": connection.reason,
            }
            for name, connection in sorted(self._pool.connections.items())
        ]

    async def _tell_health(self) -> None:
        """The relay serves when it is connected to a node."""
        while True:
            version = self._pool.version
            connected = bool(self._pool.connected)
            for server in (self._server, self._probes):
                await server.set_serving(connected)
            if connected:
                self._context.health.ready("peers")
            else:
                reasons = [f"{c.peer.name}: {c.reason}" for c in self._pool.unavailable[:3]]
                self._context.health.not_ready("; ".join(reasons) or "no node is known yet", "peers")
            await self._pool.changed(version)

    def _client_keeper(self, config: RelayConfig) -> Keeper:
        files = Files(
            config.tls_hubble_client_cert_file,
            config.tls_hubble_client_key_file,
            tuple(config.tls_hubble_server_ca_files),
        )
        return self._keeper(config, files, RELAY_CLIENT_SECRET, "certificate")

    def _listeners(self, config: RelayConfig) -> list[Listener]:
        found = [Listener(str(socket_path(config, self._context.node)), "relay.socket_path")]
        if not config.listen_address:
            return found
        if config.disable_server_tls:
            return [*found, Listener(config.listen_address, "relay.listen_address")]
        certificate, key = config.tls_relay_server_cert_file, config.tls_relay_server_key_file
        files = Files(certificate, key, tuple(config.tls_relay_client_ca_files) or (certificate,) * bool(certificate))
        keeper = self._keeper(config, files, RELAY_SERVER_SECRET, "server-certificate")

        async def provide() -> grpc.ServerCredentials:
            await keeper.changed(None)
            return server_credentials(keeper, client_certificates=config.client_certificates)

        return [*found, Listener(config.listen_address, "relay.listen_address", provide)]

    def _keeper(self, config: RelayConfig, files: Files, secret: str, condition: str) -> Keeper:
        context = self._context
        keeper: Keeper
        if files:
            keeper = FileKeeper(files, context.health, condition, context.log)
        else:
            keeper = SecretKeeper(
                context.store, config.secrets_namespace, secret, context.health, condition, context.log
            )
        context.spawn(condition, keeper.run)
        return keeper
