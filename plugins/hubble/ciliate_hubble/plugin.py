"""The front door of the plugin hubble. Every process of a node imports it: nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ciliate.api.routes import Route
from ciliate.context import Context
from ciliate.hookspecs import hookimpl
from ciliate.plugin import Plugin
from ciliate.store import Kind

from ciliate_hubble.certificates.secrets import SECRET
from ciliate_hubble.config import HubbleConfig

if TYPE_CHECKING:
    from ciliate_hubble.process import HubbleProcess


class HubblePlugin(Plugin):
    """On a node: keeps its recent flows and serves them. In the operator: makes the certificates."""

    name = "hubble"
    description = "Keeps recent flows, each with its rules, and serves them over Hubble's API."
    config = HubbleConfig
    roles = ("hubble", "operator")

    def __init__(self) -> None:
        self._process: HubbleProcess | None = None

    @hookimpl
    def ciliate_kinds(self) -> Iterable[Kind]:
        """Secrets hold the certificates."""
        return [SECRET]

    @hookimpl
    def ciliate_setup(self, context: Context) -> None:
        """Begin to keep flows and to serve them; in the operator, make the certificates for that."""
        if context.node.role == "operator":
            from ciliate_hubble.certificates import operator

            operator.start(context)
            return
        from ciliate_hubble.process import HubbleProcess

        self._process = HubbleProcess(context)
        self._process.start()

    @hookimpl
    def ciliate_routes(self) -> Iterable[Route]:
        """What is kept of flows."""
        return self._process.routes() if self._process is not None else ()
