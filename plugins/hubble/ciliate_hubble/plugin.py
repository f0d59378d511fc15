"""The front door of the plugin hubble. Every process of a node imports it: nothing heavy is imported here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ciliate.context import Context
from ciliate.hookspecs import hookimpl
from ciliate.plugin import Plugin

from ciliate_hubble.config import HubbleConfig

if TYPE_CHECKING:
    from ciliate_hubble.process import HubbleProcess


class HubblePlugin(Plugin):
    """Keeps a node's recent flows and serves them."""

    name = "hubble"
    description = "Keeps recent flows, each with its rules, and serves them over Hubble's API."
    config = HubbleConfig
    roles = ("hubble",)

    def __init__(self) -> None:
        self._process: HubbleProcess | None = None

    @hookimpl
    def ciliate_setup(self, context: Context) -> None:
        """Begin to keep flows and to serve them."""
        from ciliate_hubble.process import HubbleProcess

        self._process = HubbleProcess(context)
        self._process.start()
