"""A record of the data path as what a line says of it: its numbers, joined with the tables that know their names."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ciliate.model.base import unpack_address
from ciliate.model.endpoint import Endpoint, EndpointPolicy
from ciliate.model.identity import Identity
from ciliate.model.policy import RuleSet
from ciliate.model.reasons import DropReason, reason_text

DENIED = (DropReason.POLICY_DENIED, DropReason.POLICY_DENY, DropReason.AUTH_REQUIRED)


def wall_time(monotonic: int) -> str:
    """A time of CLOCK_MONOTONIC, in ns, as a date in UTC."""
    return datetime.fromtimestamp((time.time_ns() - time.monotonic_ns() + monotonic) / 1e9, UTC).isoformat()


@dataclass(frozen=True)
class Names:
    """Rows by key, of four tables."""

    endpoints: Mapping[int, Endpoint]
    identities: Mapping[int, Identity]
    rule_sets: Mapping[int, RuleSet]
    policies: Mapping[int, EndpointPolicy]

    def flow(self, record: Any) -> dict[str, Any]:
        """What a line says of one record, of dtype ciliate.model.event.EVENT."""
        direction, own = ("egress", "source") if record["direction"] == 1 else ("ingress", "destination")
        default = getattr(self.policies.get(int(record[f"{own}_endpoint"])), f"{direction}_default", 0)
        rule_set = self.rule_sets.get(int(record[f"rule_set_{direction}"]) or default)  # 0: no rule allows it
        return {
            "time": wall_time(int(record["time"])),
            "reason": reason_text(int(record["reason"])),
            "direction": direction,
            "rules": [rule.path for rule in rule_set.rules] if rule_set else ["default-deny"],
            "protocol": int(record["protocol"]),
            **{side: self._end(record, side) for side in ("source", "destination")},
            "packets": int(record["packets"]),
        }

    def _end(self, record: Any, side: str) -> dict[str, Any]:
        endpoint = self.endpoints.get(int(record[f"{side}_endpoint"]))
        identity = self.identities.get(int(record[f"{side}_identity"]))
        return {
            "address": str(unpack_address(record[side].tobytes())),
            "port": int(record[f"{side}_port"]),
            "namespace": endpoint.namespace if endpoint else "",  # of pods of other nodes the labels have it
            "pod": endpoint.pod if endpoint else "",
            "labels": identity.labels if identity else (),
        }
