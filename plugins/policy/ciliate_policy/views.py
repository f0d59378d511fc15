"""What the API says of policy."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

import numpy as np
from ciliate.api.routes import ApiError, Request
from ciliate.model.identity import Reserved
from ciliate.model.ipcache import IPCACHE_MAP, IPCACHE_UNRESOLVED
from ciliate.model.kinds import POD
from ciliate.model.policy import POLICY_DENY, POLICY_MAP, POLICY_PREFIX, Direction
from ciliate.store import StoreError

from ciliate_policy import explain
from ciliate_policy.agent import PolicyAgent
from ciliate_policy.ipcache import Address, lookup, text_of
from ciliate_policy.rules import PROTOCOL_NAMES


@dataclass(frozen=True)
class Party:
    """One end of a connection. endpoint: its id, if it is a pod of this node."""

    text: str
    identity: int
    endpoint: int | None = None
    pod: str = ""


class PolicyViews:
    """Answers about one node's policy."""

    def __init__(self, agent: PolicyAgent) -> None:
        self._agent = agent

    async def explain(self, request: Request) -> dict[str, Any]:
        """The verdict on a packet, side by side; a side whose pod is not of this node is null."""
        query = request.query
        for name in ("from", "to", "port"):
            if not query.get(name):
                raise ApiError(400, f"`{name}` is missing: from and to are pods or addresses, port is 80/tcp")
        try:
            protocol, port = explain.parse_port(query["port"])
        except explain.PortSpecError as error:
            raise ApiError(400, str(error)) from error
        source, destination = await self._party(query["from"]), await self._party(query["to"])
        egress = self._side(Direction.EGRESS, source, destination, protocol, port)
        ingress = self._side(Direction.INGRESS, destination, source, protocol, port)
        return {
            "from": self._describe(source),
            "to": self._describe(destination),
            "port": query["port"],
            "verdict": explain.overall([egress, ingress]),
            "egress": egress,
            "ingress": ingress,
            "node": self._agent.context.node.name,
        }

    async def selectors(self, _: Request) -> list[dict[str, Any]]:
        """Policies in use: direction, mode, number of entries, endpoints."""
        engine, realiser = self._agent.engine, self._agent.realiser
        return [
            {
                "id": realiser.policy_id(resolved) if realiser is not None else 0,
                "direction": resolved.key.direction.name.lower(),
                "enforcing": resolved.key.enforcing,
                "entries": resolved.size,
                "peers": len(resolved.entries),
                "endpoints": engine.users({resolved}),
            }
            for resolved in engine.resolved
        ]

    async def policy_map(self, request: Request) -> list[dict[str, Any]]:
        """What the kernel holds, with the rules by path."""
        keys, values = self._agent.context.maps.open(POLICY_MAP).items()
        if request.query.get("endpoint"):
            chosen = np.isin(keys["policy"], self._policies_of(request.query["endpoint"]))
            keys, values = keys[chosen], values[chosen]
        order = np.lexsort((keys["port"], keys["protocol"], keys["identity"], keys["policy"]))
        return [self._entry(keys[number], values[number]) for number in order]

    def _policies_of(self, endpoint: str) -> list[int]:
        row = self._agent.records.endpoint_policies.rows.get(int(endpoint)) if endpoint.isdecimal() else None
        if row is None:
            raise ApiError(404, f"there is no endpoint {endpoint} here; `ciliate-dbg endpoint list` shows them")
        return [row.ingress_policy, row.egress_policy]

    def _entry(self, key: Any, value: Any) -> dict[str, Any]:
        length = max(0, int(key["prefixlen"]) - POLICY_PREFIX - 8)
        first, protocol = int(key["port"]), int(key["protocol"])
        last = first | (0xFFFF >> length)
        return {
            "policy": int(key["policy"]),
            "direction": Direction(int(key["direction"])).name.lower(),
            "action": "deny" if value["flags"] & POLICY_DENY else "allow",
            "identity": int(key["identity"]),
            "labels": list(self._agent.engine.labels.get(int(key["identity"]), ())),
            "protocol": PROTOCOL_NAMES.get(protocol, str(protocol)),
            "port": "" if length == 0 else str(first) if first == last else f"{first}-{last}",
            "precedence": int(value["precedence"]),
            "proxy_port": int(value["proxy_port"]),
            "rule_set": int(value["rule_set"]),
            "rules": [rule.path for rule in self._agent.rule_sets.rules(int(value["rule_set"]))],
        }

    async def ipcache_map(self, _: Request) -> list[dict[str, Any]]:
        """What the kernel holds, with the claimant that decided."""
        keys, values = self._agent.context.maps.open(IPCACHE_MAP).items()
        rows = []
        for key, value in zip(keys, values, strict=True):
            address = Address(int(key["prefixlen"]), key["address"].tobytes())
            entry = self._agent.ipcache.entries.get(address)
            rows.append(
                {
                    "prefix": text_of(address),
                    "identity": int(value["identity"]),
                    "labels": list(self._agent.engine.labels.get(int(value["identity"]), ())),
                    "node": entry.node if entry is not None else "",
                    "unresolved": bool(value["flags"] & IPCACHE_UNRESOLVED),
                    "claimant": entry.claimant if entry is not None else "(an earlier life)",
                }
            )
        return sorted(rows, key=lambda row: (":" in str(row["prefix"]), str(row["prefix"])))

    def _side(self, direction: Direction, own: Party, peer: Party, protocol: int, port: int) -> dict[str, Any] | None:
        if own.endpoint is None or own.endpoint not in self._agent.engine.realised:
            return None
        return explain.explain_direction(
            self._agent.engine, self._agent.rule_sets, direction, own.endpoint, peer.identity, protocol, port,
            self._agent.config.audit,
        )  # fmt: skip

    def _describe(self, party: Party) -> dict[str, Any]:
        labels = self._agent.engine.labels.get(party.identity, ())
        return {
            "name": party.pod or party.text,
            "identity": party.identity,
            "labels": list(labels),
            "endpoint": party.endpoint,
        }

    async def _party(self, text: str) -> Party:
        if text.startswith("reserved:"):
            return self._reserved(text)
        try:
            address = str(ipaddress.ip_address(text))
        except ValueError:
            return await self._pod(text)
        return self._address(address)

    def _reserved(self, text: str) -> Party:
        for one in Reserved:
            if one.label == text:
                return Party(text, int(one))
        raise ApiError(404, f"there is no identity {text}; known are {', '.join(one.label for one in Reserved)}")

    def _address(self, address: str, name: str = "") -> Party:
        for row in self._agent.endpoints.values():
            if address in (row.ipv4, row.ipv6):
                return self._endpoint(row.id, address)
        entry = lookup(self._agent.ipcache.entries, address)
        return Party(address, entry.identity if entry is not None else Reserved.WORLD, pod=name)

    def _endpoint(self, number: int, text: str) -> Party:
        row = self._agent.endpoints[number]
        endpoint = self._agent.engine.endpoints.get(number)
        if endpoint is None:
            raise ApiError(503, f"pod {row.namespace}/{row.pod} has no identity yet; try again")
        return Party(text, endpoint.identity, number, f"{row.namespace}/{row.pod}")

    async def _pod(self, text: str) -> Party:
        """A pod by `namespace/name` or, in any namespace, `name`: of this node, else of the store."""
        namespace, _, name = text.rpartition("/")
        found = [r for r in self._agent.endpoints.values() if r.pod == name and namespace in ("", r.namespace)]
        if len(found) > 1:
            names = ", ".join(f"{row.namespace}/{row.pod}" for row in found)
            raise ApiError(409, f"{text!r} is more than one pod: {names}; write the namespace too")
        if found:
            return self._endpoint(found[0].id, text)
        try:
            pod = await self._agent.context.store.get(POD.only("status.podIP"), name, namespace or "default")
        except StoreError as error:
            raise ApiError(404, f"{text!r} is neither an address nor a pod known here: {error}") from error
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            raise ApiError(409, f"pod {text} has no address yet")
        return self._address(address, f"{namespace or 'default'}/{name}")
