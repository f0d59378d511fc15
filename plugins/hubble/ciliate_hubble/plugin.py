"""The front door of the plugin hubble. Every process of a node imports it: nothing heavy is imported here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ciliate.api.routes import ApiError, Request, Route
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
        context.health.not_ready("starts", "start")
        context.spawn("start", partial(self._start, context))

    @hookimpl
    def ciliate_routes(self) -> Iterable[Route]:
        """What is kept of flows."""
        return [Route("GET", "/hubble", self._status, "What is kept of flows, from when to when, and what was lost.")]

    async def _start(self, context: Context) -> None:
        """In a task: what is imported takes a tenth of a second, and no hook may take so long. Not tried twice."""
        module = await asyncio.to_thread(import_module, "ciliate_hubble.process")
        try:
            self._process = module.HubbleProcess(context)
            self._process.start()
        except Exception as error:
            context.log.exception("hubble can't start")
            context.health.not_ready(f"{type(error).__name__}: {error}", "start")
        else:
            context.health.ready("start")

    async def _status(self, request: Request) -> dict[str, Any]:
        if self._process is None:
            raise ApiError(503, "hubble has not started; `ciliate status` says why")
        return self._process.status()
