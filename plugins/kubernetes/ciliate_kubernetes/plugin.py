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
from ciliate_kubernetes.peers.claims import CLAIMS
from ciliate_kubernetes.peers.cluster import ENDPOINT_SLICE, Cluster


class KubernetesPlugin(Plugin):
    """In the agent: what the cluster's objects say of addresses on other nodes."""

    name = "kubernetes"
    description = "Learns the addresses of other nodes, their pods and the API server from the cluster's objects."
    config = KubernetesConfig
    essential = True
    roles = ("agent",)

    @hookimpl
    def ciliate_kinds(self) -> Iterable[Kind]:
        return [ENDPOINT_SLICE]

    @hookimpl
    def ciliate_tables(self) -> Iterable[TableSpec[Any]]:
        return [CLAIMS, API_SERVERS]

    @hookimpl
    def ciliate_setup(self, context: Context) -> None:
        Cluster(context).start()
