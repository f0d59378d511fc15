"""Why a flow went as it did: the policy object and rule that decided, and the reason of a drop, in one line."""

from __future__ import annotations

from ciliate_hubble.api import flow_pb2
from ciliate_hubble.cli.colours import Colours
from ciliate_hubble.cli.texts import drop_text
from ciliate_hubble.words import RULE_LABEL


def why(flow: flow_pb2.Flow, paint: Colours) -> str:
    """As `Policy denied: ingress denied by CiliumNetworkPolicy shop/db spec.ingress[0]`; empty if nobody judged.

    Of what was dropped it begins with the reason.
    """
    sides = _sides(flow, "denied") or _sides(flow, "allowed")
    text = "; ".join(sides + [f"log: {line}" for line in flow.policy_log])
    if flow.verdict != flow_pb2.DROPPED:
        return text
    place = f" at {flow.file.name}:{flow.file.line}" if flow.file.name and not sides else ""
    reason = drop_text(flow.drop_reason_desc or flow.drop_reason) + place
    return paint.reason(f"{reason}: {text}" if text else reason)


def _sides(flow: flow_pb2.Flow, verdict: str) -> list[str]:
    return [
        f"{side} {verdict} by {', '.join(map(_rule, policies))}"
        for side in ("egress", "ingress")
        if (policies := getattr(flow, f"{side}_{verdict}_by"))
    ]


def _rule(policy: flow_pb2.Policy) -> str:
    """`CiliumNetworkPolicy shop/db spec.ingress[0]`; of a default its name."""
    owner = f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name
    places = [label[len(RULE_LABEL) :] for label in policy.labels if label.startswith(RULE_LABEL)]
    return " ".join(word for word in (policy.kind, owner, ", ".join(places)) if word)
