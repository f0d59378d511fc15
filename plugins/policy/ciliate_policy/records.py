"""The tables that policy writes: identities, rule sets, what each endpoint and each object has come to, claims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ciliate.model.endpoint import ENDPOINT_POLICIES, Endpoint, EndpointPolicy
from ciliate.model.identity import IDENTITIES, Identity
from ciliate.model.ipcache import IPCACHE, claims_table
from ciliate.model.policy import POLICY_REVISIONS, RULE_SETS, Direction, PolicyRevision, RuleSet
from ciliate.tables.hub import PluginTables

from ciliate_policy.changes import Defaults, EndpointPolicies
from ciliate_policy.engine import Engine
from ciliate_policy.ipcache import POLICY
from ciliate_policy.realise import Realiser
from ciliate_policy.rule_sets import RuleSets
from ciliate_policy.rules import Policy, PolicyKey


class Records:
    """The writers, and the rows that are made of what the engine says."""

    def __init__(self, tables: PluginTables) -> None:
        self.commit = tables.commit
        self.identities = tables.writer(IDENTITIES)
        self.rule_sets = tables.writer(RULE_SETS)
        self.endpoint_policies = tables.writer(ENDPOINT_POLICIES)
        self.revisions = tables.writer(POLICY_REVISIONS)
        self.ipcache = tables.writer(IPCACHE)
        self.claims = tables.writer(claims_table(POLICY))

    def save_identities(self, labels: Mapping[int, tuple[str, ...]]) -> None:
        """Make numbers and their labels durable."""
        with self.commit():
            self.identities.put_all(Identity(id=number, labels=found) for number, found in labels.items())

    def save_rule_sets(self, rows: list[RuleSet]) -> None:
        """Make rule sets durable, before an entry names them."""
        if rows:
            with self.commit():
                self.rule_sets.put_all(rows)

    def write_endpoints(
        self, pointed: Iterable[EndpointPolicies], endpoints: Mapping[int, Endpoint], realiser: Realiser,
        rule_sets: RuleSets, revision: int,
    ) -> None:  # fmt: skip
        """What is realised for endpoints."""
        numbers: dict[int, tuple[int, int]] = {}  # endpoints of an identity share their defaults
        with self.commit():
            for one in pointed:
                row = endpoints.get(one.endpoint.id)
                if row is not None:
                    defaults = numbers.get(id(one.defaults)) or _default_numbers(one.defaults, rule_sets)
                    numbers[id(one.defaults)] = defaults
                    self.endpoint_policies.put(_endpoint_row(one, row, realiser, defaults, revision))
            self.rule_sets.put_all(rule_sets.take_new())

    def default_rule_sets(self) -> set[int]:
        """The numbers that name what is denied by default."""
        rows = self.endpoint_policies.rows.values()
        return {number for row in rows for number in (row.ingress_default, row.egress_default)}

    def write_policy(self, policy: Policy, revision: int, selected: int) -> None:
        """How far a policy is realised."""
        key = policy.key
        row = PolicyRevision(
            kind=key.kind, namespace=key.namespace, name=key.name, uid=policy.uid, generation=policy.generation,
            revision=revision, enforced=not policy.invalid, unsupported=policy.unsupported, invalid=policy.invalid,
            selected=selected,
        )  # fmt: skip
        self.revisions.put(row)

    def policies(self) -> set[PolicyKey]:
        """The policies of which there are rows."""
        return {PolicyKey(row.kind, row.namespace, row.name) for row in self.revisions.rows.values()}

    def drop_leftovers(self, engine: Engine, endpoints: Mapping[int, Endpoint], prefixes: set[str]) -> list[int]:
        """Delete what an earlier life left and nothing needs; the endpoints among it. Readers may prune from now on."""
        gone = [number for number in self.endpoint_policies.rows if number not in endpoints]
        with self.commit():
            for number in gone:
                self.endpoint_policies.delete(number)
            for number in [n for n in self.identities.rows if n not in engine.labels]:
                self.identities.delete(number)
            for prefix in [prefix for prefix in self.claims.rows if prefix not in prefixes]:
                self.claims.delete(prefix)
        for complete in (
            self.identities.complete, self.rule_sets.complete, self.endpoint_policies.complete, self.revisions.complete,
            self.claims.complete,
        ):  # fmt: skip
            complete()
        return gone


def _default_numbers(defaults: Defaults, rule_sets: RuleSets) -> tuple[int, int]:
    return rule_sets.default(Direction.INGRESS, defaults[0]), rule_sets.default(Direction.EGRESS, defaults[1])


def _endpoint_row(
    one: EndpointPolicies, row: Endpoint, realiser: Realiser, defaults: tuple[int, int], revision: int
) -> EndpointPolicy:
    return EndpointPolicy(
        id=row.id, generation=row.generation, identity=one.endpoint.identity,
        ingress_policy=realiser.policy_id(one.ingress), egress_policy=realiser.policy_id(one.egress),
        revision=revision,
        ingress_enforcing=one.ingress.key.enforcing, egress_enforcing=one.egress.key.enforcing,
        ingress_default=defaults[0] if one.ingress.key.enforcing else 0,
        egress_default=defaults[1] if one.egress.key.enforcing else 0,
    )  # fmt: skip
