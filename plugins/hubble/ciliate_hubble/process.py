"""All of `ciliate run hubble`, put together."""

from __future__ import annotations

from ciliate.context import Context

from ciliate_hubble.config import HubbleConfig, socket_path
from ciliate_hubble.server import Server, Servicer


class HubbleProcess:
    """Flows of one node: from the data path's records to those who ask."""

    def __init__(self, context: Context) -> None:
        config: HubbleConfig = context.config
        self._context = context
        servicers: list[Servicer] = []
        self._server = Server(
            servicers,
            socket_path(config, context.node),
            config.listen_address,
            context.health,
            plaintext=config.disable_tls,
        )

    def start(self) -> None:
        """Start the tasks."""
        self._context.spawn("server", self._server.run)
