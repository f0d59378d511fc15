"""What the engine is told of endpoints, and what it says must be realised."""

from __future__ import annotations

from dataclasses import dataclass, field

from ciliate.model.endpoint import NamedPort
from ciliate.model.policy import Rule

from ciliate_policy.cidrs import Prefix
from ciliate_policy.resolve import Profile, Resolved


@dataclass(frozen=True)
class EngineOptions:
    """Settings that change verdicts."""

    enable_policy: str = "default"  # default, always, never
    allow_localhost: bool = True
    ipv4: bool = True
    ipv6: bool = True


@dataclass(frozen=True)
class LocalEndpoint:
    """A pod of this node, as policy sees it."""

    id: int
    identity: int
    named_ports: tuple[NamedPort, ...] = ()


Defaults = tuple[tuple[Rule, ...], tuple[Rule, ...]]
"""By direction, the specs that have switched default deny on for an endpoint; empty if a mode or a label has."""


@dataclass(frozen=True)
class EndpointPolicies:
    """An endpoint's two policies, and what is named if nothing in them allows a packet."""

    endpoint: LocalEndpoint
    ingress: Resolved
    egress: Resolved
    defaults: Defaults = ((), ())


@dataclass
class Refreshed:
    """Entries of one identity in a policy in use. `fresh`: nobody had the identity before, no verdict has changed."""

    resolved: Resolved
    identity: int
    before: Profile
    after: Profile
    fresh: bool


@dataclass
class Changes:
    """What must be realised."""

    endpoints: dict[int, EndpointPolicies] = field(default_factory=dict)
    refreshed: list[Refreshed] = field(default_factory=list)
    created: list[Resolved] = field(default_factory=list)
    prefixes: dict[Prefix, int | None] = field(default_factory=dict)  # identity; None: no region any more
    identities: dict[int, tuple[str, ...]] = field(default_factory=dict)  # new ones of the local scope

    def with_later(self, later: Changes) -> Changes:
        """These and later ones. What was refreshed before is in the entries of what is created."""
        return Changes(
            self.endpoints | later.endpoints, later.refreshed, [*self.created, *later.created],
            self.prefixes | later.prefixes, self.identities | later.identities,
        )  # fmt: skip
