"""The policies of a flow name their rules."""

from __future__ import annotations

from ciliate.model.policy import DEFAULT_DENY, Rule
from ciliate_hubble.api.flow_pb2 import Flow
from ciliate_hubble.encoding.parts import policies
from ciliate_hubble.words import RULE_LABEL

INGRESS_DENIED_BY = 21005


def _rule(name: str, direction: str, index: int, kind: str = "CiliumNetworkPolicy", spec_index: int = -1) -> Rule:
    return Rule(
        kind=kind,
        namespace="shop",
        name=name,
        uid="u",
        generation=3,
        direction=direction,
        index=index,
        spec_index=spec_index,
    )


def _places(*rules: Rule) -> dict[str, list[str]]:
    flow = Flow.FromString(policies(INGRESS_DENIED_BY, rules))
    return {
        policy.name: [label.removeprefix(RULE_LABEL) for label in policy.labels if label.startswith(RULE_LABEL)]
        for policy in flow.ingress_denied_by
    }


def test_an_object_is_named_once_with_all_its_rules_that_decided() -> None:
    rules = (_rule("db", "ingressDeny", 0), _rule("web", "ingress", 1, spec_index=2), _rule("db", "ingressDeny", 4))
    assert _places(*rules) == {"db": ["spec.ingressDeny[0]", "spec.ingressDeny[4]"], "web": ["specs[2].ingress[1]"]}


def test_a_default_deny_of_an_object_is_a_place_too() -> None:
    rules = _rule("db", "ingress", DEFAULT_DENY), _rule("web", "egress", DEFAULT_DENY, spec_index=0)
    assert _places(*rules) == {"db": ["(default deny, ingress)"], "web": ["specs[0] (default deny, egress)"]}
    assert rules[1].path == "CiliumNetworkPolicy shop/web specs[0] (default deny, egress)"


def test_what_no_object_states_has_a_name_and_no_place() -> None:
    assert _places(_rule("allow-all", "", 0, kind="")) == {"allow-all": []}
