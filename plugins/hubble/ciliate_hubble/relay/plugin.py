"""The front door of the plugin relay. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ciliate.api.routes import Route
from ciliate.context import Context
from ciliate.hookspecs import hookimpl
from ciliate.plugin import Plugin
from ciliate.store import Kind

from ciliate_hubble.certificates.secrets import SECRET
from ciliate_hubble.relay.config import RelayConfig

if TYPE_CHECKING:
    from ciliate_hubble.relay.process import RelayProcess


class RelayPlugin(Plugin):
    """One observer for all nodes of a cluster."""

    name = "relay"
    description = "Serves the flows of all nodes, merged by time, over Hubble's API."
    config = RelayConfig
    roles = ("relay",)

    def __init__(self) -> None:
        self._process: RelayProcess | None = None

    @hookimpl
    def ciliate_kinds(self) -> Iterable[Kind]:
        """Secrets hold the certificates."""
        return [SECRET]

    @hookimpl
    def ciliate_setup(self, context: Context) -> None:
        """Begin to follow the nodes and to serve."""
        from ciliate_hubble.relay.process import RelayProcess

        self._process = RelayProcess(context)
        self._process.start()

    @hookimpl
    def ciliate_routes(self) -> Iterable[Route]:
        """Which nodes there are."""
        return self._process.routes() if self._process is not None else ()
