"""The front door: what the host calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ciliate.api.routes import Route
from ciliate.context import Context
from ciliate.hookspecs import hookimpl
from ciliate.maps.spec import MapSpec
from ciliate.model.endpoint import ENDPOINT_POLICIES, ENDPOINT_POLICY_MAP, ENDPOINT_STAMPS_MAP, PEER_STAMPS_MAP
from ciliate.model.identity import IDENTITIES
from ciliate.model.ipcache import IPCACHE, IPCACHE_MAP, claims_table
from ciliate.model.policy import POLICY_MAP, POLICY_REVISIONS, RULE_SETS
from ciliate.plugin import Plugin
from ciliate.review import Finding
from ciliate.store import Object
from ciliate.tables.spec import TableSpec

from ciliate_policy import intake, objects
from ciliate_policy.agent import PolicyAgent
from ciliate_policy.config import PolicyConfig
from ciliate_policy.operator.identities import IdentityCollection
from ciliate_policy.operator.statuses import Statuses
from ciliate_policy.views import PolicyViews


class PolicyPlugin(Plugin):
    """In the agent: network policy of a node's pods. In the operator: policies' status, identities nobody uses."""

    name = "policy"
    description = "Decides who may talk to whom, and names the rule behind every verdict."
    config = PolicyConfig
    roles = ("agent", "operator")
    essential = True

    def __init__(self) -> None:
        self._agent: PolicyAgent | None = None

    @hookimpl
    def ciliate_tables(self) -> Iterable[TableSpec[Any]]:
        return [IDENTITIES, RULE_SETS, ENDPOINT_POLICIES, POLICY_REVISIONS, IPCACHE, claims_table("policy")]

    @hookimpl
    def ciliate_maps(self) -> Iterable[MapSpec]:
        return [POLICY_MAP, IPCACHE_MAP, ENDPOINT_POLICY_MAP, ENDPOINT_STAMPS_MAP, PEER_STAMPS_MAP]

    @hookimpl
    def ciliate_setup(self, context: Context) -> None:
        if context.node.role == "operator":
            context.lead("statuses", lambda: Statuses(context).run())
            context.lead("identities", IdentityCollection(context).run)
            context.health.ready()
            return
        self._agent = PolicyAgent(context)
        intake.start(context, self._agent)

    @hookimpl
    def ciliate_routes(self) -> Iterable[Route]:
        if self._agent is None:
            return []
        views = PolicyViews(self._agent)
        return [
            Route("GET", "/policy/explain", views.explain, "Verdict and rules for from, to and port."),
            Route("GET", "/policy/selectors", views.selectors, "What each policy in use selects, and its size."),
            Route("GET", "/bpf/policy", views.policy_map, "Entries of the map `policy`; endpoint=ID for one pod's."),
            Route("GET", "/bpf/ipcache", views.ipcache_map, "Entries of the map `ipcache`."),
        ]

    @hookimpl
    def ciliate_review(self, obj: Object) -> Iterable[Finding]:
        return objects.review(obj)
