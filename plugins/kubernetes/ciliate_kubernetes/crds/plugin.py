"""The front door of the plugin crds."""

from __future__ import annotations

from collections.abc import Iterable

from ciliate.context import Context
from ciliate.hookspecs import hookimpl
from ciliate.plugin import Plugin
from ciliate.store import Kind

from ciliate_kubernetes.crds.registration import Registration
from ciliate_kubernetes.crds.waiting import Waiting
from ciliate_kubernetes.install.kinds import CUSTOM_RESOURCE_DEFINITION


class CrdsPlugin(Plugin):
    """In the operator: tells the API server of our kinds. In the agent: waits for them."""

    name = "crds"
    description = "Registers the kinds of cilium.io, and waits for them."
    roles = ("agent", "operator")
    essential = True

    @hookimpl
    def ciliate_kinds(self) -> Iterable[Kind]:
        return [CUSTOM_RESOURCE_DEFINITION]

    @hookimpl
    def ciliate_setup(self, context: Context) -> None:
        if context.node.role == "operator":
            context.lead("definitions", lambda: Registration(context).run())
            context.health.ready()
        else:
            context.spawn("definitions", Waiting(context).run)
