"""Where a node's server listens, with which certificates, and which nodes it tells relays of."""

from __future__ import annotations

import grpc
from ciliate.context import Context

from ciliate_hubble.certificates.credentials import server_credentials
from ciliate_hubble.certificates.material import FileKeeper, Files, Keeper, SecretKeeper
from ciliate_hubble.certificates.names import SERVER_SECRET
from ciliate_hubble.config import HubbleConfig, socket_path
from ciliate_hubble.peer.nodes import Nodes, PeerNames
from ciliate_hubble.server import CredentialsProvider, Listener


def listeners(context: Context) -> list[Listener]:
    """The Unix socket and the TCP address; starts what keeps the certificates of the latter current."""
    config: HubbleConfig = context.config
    found = [Listener(str(socket_path(config, context.node)), "hubble.socket_path")]
    if config.listen_address:
        credentials = None if config.disable_tls else _credentials(context, config)
        found.append(Listener(config.listen_address, "hubble.listen_address", credentials))
    return found


def nodes(context: Context) -> Nodes:
    """The nodes for the peer service; starts what follows them."""
    config: HubbleConfig = context.config
    _, _, port = config.listen_address.rpartition(":")
    names = PeerNames(
        context.node.cluster, int(port) if port.isdigit() else None, config.prefer_ipv6, not config.disable_tls
    )
    found = Nodes(context.store, names)
    context.spawn("nodes", found.run)
    return found


def _credentials(context: Context, config: HubbleConfig) -> CredentialsProvider:
    files = Files(config.tls_cert_file, config.tls_key_file, tuple(config.tls_client_ca_files))
    keeper: Keeper
    if files:
        keeper = FileKeeper(files, context.health, "certificate", context.log)
    else:
        keeper = SecretKeeper(
            context.store, config.secrets_namespace, SERVER_SECRET, context.health, "certificate", context.log
        )
    context.spawn("certificate", keeper.run)

    async def provide() -> grpc.ServerCredentials:
        await keeper.changed(None)
        return server_credentials(keeper, client_certificates=True)

    return provide
