"""The front door of the plugin cni."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ciliate.api.routes import Route
from ciliate.context import Context
from ciliate.hookspecs import hookimpl
from ciliate.maps.spec import MapSpec
from ciliate.model.conntrack import CONNTRACK_MAP, CONNTRACK_NEW_MAP, CONNTRACK_OLD_MAP, ENDPOINT_FLOWS_MAP
from ciliate.model.datapath import SWITCHES_MAP
from ciliate.model.endpoint import ENDPOINT_IPS_MAP, ENDPOINTS, ENDPOINTS_MAP
from ciliate.model.event import EVENTS_MAP, PACKETS_MAP
from ciliate.model.points import FROM_POD_SLOTS_MAP, POINT_PACKET_MAP, POINT_SLOTS_MAP, POINT_STATS_MAP
from ciliate.plugin import Plugin
from ciliate.tables.spec import TableSpec

from ciliate_cni.agent import CLAIMS, Agent
from ciliate_cni.api import routes
from ciliate_cni.collection import EndpointCollection
from ciliate_cni.config import CniConfig
from ciliate_cni.endpoints import RESERVES


class CniPlugin(Plugin):
    """In the agent: connects containers, keeps their endpoints. In the operator: deletes stale objects of endpoints."""

    name = "cni"
    description = "CNI server, endpoints and the node's programs"
    config = CniConfig
    needs = ("ipam",)
    needs_same_process = ("ipam",)
    roles = ("agent", "operator")
    essential = True

    def __init__(self) -> None:
        self._agent: Agent | None = None

    @hookimpl
    def ciliate_tables(self) -> Iterable[TableSpec[Any]]:
        """Endpoints, what is reserved for them, and what is known of addresses."""
        return (ENDPOINTS, RESERVES, CLAIMS)

    @hookimpl
    def ciliate_maps(self) -> Iterable[MapSpec]:
        """Endpoints, and what the programs keep of flows and packets."""
        of_points = (POINT_PACKET_MAP, FROM_POD_SLOTS_MAP, POINT_SLOTS_MAP, POINT_STATS_MAP, SWITCHES_MAP)
        flows = (CONNTRACK_MAP, CONNTRACK_NEW_MAP, CONNTRACK_OLD_MAP, ENDPOINT_FLOWS_MAP)
        return (ENDPOINTS_MAP, ENDPOINT_IPS_MAP, *flows, EVENTS_MAP, PACKETS_MAP, *of_points)

    @hookimpl
    def ciliate_setup(self, context: Context) -> None:
        """Open what is kept, then start."""
        if context.node.role == "operator":
            context.lead("endpoints", lambda: EndpointCollection(context).run())
            context.health.ready()
            return
        self._agent = Agent(context)
        self._agent.start()

    @hookimpl
    def ciliate_routes(self) -> Iterable[Route]:
        """What `ciliate-dbg` shows."""
        return routes(self._agent) if self._agent is not None else ()

    @hookimpl
    def ciliate_stop(self) -> None:
        """Stop answering runtimes."""
        if self._agent is not None:
            self._agent.stop()
