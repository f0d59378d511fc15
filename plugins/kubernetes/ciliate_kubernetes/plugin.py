"""The front door: what the host calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ciliate.context import Context
from ciliate.hookspecs import hookimpl
from ciliate.model.api_server import API_SERVERS
from ciliate.plugin import Plugin
from ciliate.store import Kind
from ciliate.tables.spec import TableSpec

from ciliate_kubernetes.config import KubernetesConfig
from ciliate_kubernetes.nodes.admission import Admission
from ciliate_kubernetes.nodes.readiness import Readiness
from ciliate_kubernetes.peers.claims import CLAIMS
from ciliate_kubernetes.peers.cluster import ENDPOINT_SLICE, Cluster


class KubernetesPlugin(Plugin):
    """In the agent: what the cluster's objects say of addresses on other nodes. In the operator: nodes that wait."""

    name = "kubernetes"
    description = "Learns other nodes' addresses from the cluster's objects; lets pods onto nodes whose network works."
    config = KubernetesConfig
    essential = True
    roles = ("agent", "operator")

    @hookimpl
    def ciliate_kinds(self) -> Iterable[Kind]:
        return [ENDPOINT_SLICE]

    @hookimpl
    def ciliate_tables(self) -> Iterable[TableSpec[Any]]:
        return [CLAIMS, API_SERVERS]

    @hookimpl
    def ciliate_setup(self, context: Context) -> None:
        if context.node.role == "operator":
            context.lead("nodes", lambda: Admission(context).run())
            context.health.ready()
            return
        Cluster(context).start()
        context.spawn("readiness", Readiness(context).run)
