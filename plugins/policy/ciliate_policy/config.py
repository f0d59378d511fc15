"""The plugin's settings."""

from __future__ import annotations

from typing import Literal

import msgspec
from ciliate.plugin import Section


class PolicyConfig(Section):
    """How policy is enforced. Names and meanings are those of Cilium's cilium-config."""

    enable_policy: Literal["default", "always", "never"] = "default"
    allow_localhost: Literal["auto", "always", "policy"] = "auto"  # auto: always
    audit: bool = False  # denied traffic is let pass and reported (policy-audit-mode)
    labels: list[str] = msgspec.field(default_factory=list)  # [!][source:]regex, before the default label filter
    ipv4: bool = True
    ipv6: bool = True
    identity_gc_interval: float = 900.0  # seconds between two looks for identities that nobody uses; 0: none
    identity_heartbeat_timeout: float = 1800.0  # seconds that one must be unused to be deleted
