"""What a flow is, in words: its type, its verdict, its summary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ciliate_hubble.api import flow_pb2
from ciliate_hubble.cli.options import TRACE_POINTS
from ciliate_hubble.words import DROP_TEXTS

_MATCHES = ("none", "L3-Only", "L3-L4", "L4-Only", "all", "L3-Proto", "Proto-Only")
_SOCK_POINTS = ("SOCK_XLATE_POINT_UNKNOWN", "pre-xlate-fwd", "post-xlate-fwd", "pre-xlate-rev", "post-xlate-rev")
_L7 = {0: "unknown", 1: "request", 2: "response", 3: "sample"}


def type_text(flow: flow_pb2.Flow) -> str:
    """What was seen: a point of the path, why it was dropped, a policy's verdict, a request."""
    if flow.HasField("l7"):
        return _l7_text(flow.l7)
    kind, sub_type = flow.event_type.type, flow.event_type.sub_type
    match kind:
        case 1:
            return drop_text(sub_type)
        case 3:
            return enum_name(flow_pb2.DebugCapturePoint, flow.debug_capture_point)
        case 4:
            return TRACE_POINTS[sub_type] if sub_type < len(TRACE_POINTS) else str(sub_type)
        case 5:
            match = flow.policy_match_type
            direction = enum_name(flow_pb2.TrafficDirection, flow.traffic_direction)
            return f"policy-verdict:{_MATCHES[match] if match < len(_MATCHES) else 'unknown'} {direction}"
        case 7:
            point = flow.sock_xlate_point
            return _SOCK_POINTS[point] if point < len(_SOCK_POINTS) else str(point)
    return "UNKNOWN"


def drop_text(number: int) -> str:
    """The data path's words for a drop reason."""
    return DROP_TEXTS.get(number, str(number))


def _l7_text(l7: flow_pb2.Layer7) -> str:
    what = _L7.get(l7.type, "unknown")
    match l7.WhichOneof("record"):
        case "dns":
            return f"dns-{what} {l7.dns.observation_source}"
        case "http":
            return f"http-{what}"
        case "kafka":
            return f"kafka-{what}"
    return f"l7-{what}"


def verdict_text(flow: flow_pb2.Flow) -> str:
    """The verdict; of a policy verdict in words of its own."""
    if flow.event_type.type != 5:
        return enum_name(flow_pb2.Verdict, flow.verdict)
    match flow.verdict:
        case flow_pb2.FORWARDED | flow_pb2.REDIRECTED:
            return "ALLOWED"
        case flow_pb2.DROPPED | flow_pb2.ERROR:
            return "DENIED"
        case flow_pb2.AUDIT:
            return "AUDITED"
    return enum_name(flow_pb2.Verdict, flow.verdict)


def policy_names(flow: flow_pb2.Flow) -> str:
    """` BY name (Kind), ...` of the policies behind a policy verdict, or nothing."""
    if flow.event_type.type != 5:
        return ""
    ingress = flow.traffic_direction == flow_pb2.INGRESS
    if flow.verdict in (flow_pb2.FORWARDED, flow_pb2.REDIRECTED):
        policies = flow.ingress_allowed_by if ingress else flow.egress_allowed_by
    elif flow.verdict == flow_pb2.DROPPED:
        policies = flow.ingress_denied_by if ingress else flow.egress_denied_by
    else:
        return ""
    return f" BY {_named(policies)}" if policies else ""


def _named(policies: Iterable[flow_pb2.Policy]) -> str:
    return ", ".join(f"{policy.name} ({policy.kind})" if policy.kind else policy.name for policy in policies)


def summary_text(flow: flow_pb2.Flow) -> str:
    """What the packet or request says."""
    trace = f"IP Trace ID: {flow.ip_trace_id.trace_id}; " if flow.ip_trace_id.trace_id else ""
    return trace + flow.Summary


def enum_name(enum: Any, number: int) -> str:
    """The name of a number of an enum; of one that we don't know yet, the number."""
    return str({value: name for name, value in enum.items()}.get(number, number))
