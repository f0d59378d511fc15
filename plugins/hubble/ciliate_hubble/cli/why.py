"""Why a flow went as it did: the policy object and rule that decided, and the reason of a drop, in one line."""

from __future__ import annotations

from ciliate_hubble.api import flow_pb2
from ciliate_hubble.cli.colours import Colours
from ciliate_hubble.cli.texts import drop_text

RULE_LABEL = "ciliate:rule="
"""Begins the label of a flow's policy that says where in the object the rule is, as spec.ingress[0]."""


def why(flow: flow_pb2.Flow, paint: Colours) -> str:
    """As `Policy denied: ingress denied by CiliumNetworkPolicy shop/db spec.ingress[0]`; empty if nobody judged.

    Of what was dropped it begins with the reason.
    """
    sides = [
        f"{side} {verdict} by {', '.join(map(_rule, policies))}"
        for side in ("egress", "ingress")
        for verdict in ("denied", "allowed")
        if (policies := getattr(flow, f"{side}_{verdict}_by"))
    ]
    text = "; ".join(sides + [f"log: {line}" for line in flow.policy_log])
    if flow.verdict != flow_pb2.DROPPED:
        return text
    place = f" at {flow.file.name}:{flow.file.line}" if flow.file.name and not sides else ""
    reason = drop_text(flow.drop_reason_desc or flow.drop_reason) + place
    return paint.reason(f"{reason}: {text}" if text else reason)


def _rule(policy: flow_pb2.Policy) -> str:
    """`CiliumNetworkPolicy shop/db spec.ingress[0]`; of a default its name."""
    owner = f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name
    where = next((label[len(RULE_LABEL) :] for label in policy.labels if label.startswith(RULE_LABEL)), "")
    return " ".join(word for word in (policy.kind, owner, where) if word)
