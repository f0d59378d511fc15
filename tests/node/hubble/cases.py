"""Every filter flag of `hubble observe`, and what it means for a flow, written from Hubble's rules alone."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any

from tests.node.hubble.cluster import TRACE_ID
from tests.node.hubble.program import Flow

Predicate = Callable[[Flow], bool]
SIDES = ("source", "destination")


def _end(side: str, test: Callable[[dict[str, Any]], bool]) -> Predicate:
    return lambda flow: test(flow.get(side, {}))


def _either(test: Callable[[str], Predicate]) -> Predicate:
    return lambda flow: any(test(side)(flow) for side in SIDES)


def pod(namespace: str, prefix: str) -> Callable[[str], Predicate]:
    """A pod of a namespace (empty: any) by the beginning of its name."""
    return lambda side: _end(
        side,
        lambda end: (
            (not namespace or end.get("namespace") == namespace)
            and end.get("pod_name", "").startswith(prefix)
            and bool(end.get("pod_name") or end.get("namespace"))
        ),
    )


def label(text: str) -> Callable[[str], Predicate]:
    """A whole label."""
    return lambda side: _end(side, lambda end: text in end.get("labels", []))


def identity(number: int) -> Callable[[str], Predicate]:
    """A security identity."""
    return lambda side: _end(side, lambda end: end.get("identity", 0) == number)


def workload(name: str, kind: str = "") -> Callable[[str], Predicate]:
    """A workload by name and, if given, kind."""
    return lambda side: _end(
        side,
        lambda end: any(
            each.get("name") == name and kind in ("", each.get("kind")) for each in end.get("workloads", [])
        ),
    )


def ip(network: str) -> Callable[[str], Predicate]:
    """An address in a network."""
    of = ipaddress.ip_network(network)
    return lambda side: lambda flow: bool(flow.get("IP")) and ipaddress.ip_address(flow["IP"][side]) in of


def port(number: int) -> Callable[[str], Predicate]:
    """A port of TCP, UDP or SCTP."""
    return lambda side: (
        lambda flow: any(
            layer.get(f"{side}_port") == number for layer in flow.get("l4", {}).values() if f"{side}_port" in layer
        )
    )


def cluster(name: str) -> Callable[[str], Predicate]:
    """An end's cluster."""
    return lambda side: _end(side, lambda end: end.get("cluster_name") == name)


def event(number: int, sub_type: int | None = None) -> Predicate:
    """An event type, and a sub type of it."""
    return lambda flow: (
        flow["event_type"].get("type", 0) == number and sub_type in (None, flow["event_type"].get("sub_type", 0))
    )


def field(name: str, value: Any) -> Predicate:
    """A field's value."""
    return lambda flow: flow.get(name) == value


def flags(*names: str) -> Predicate:
    """TCP with all of these flags."""
    return lambda flow: all(flow.get("l4", {}).get("TCP", {}).get("flags", {}).get(name) for name in names)


def protocol(*layers: str) -> Predicate:
    """A layer 4, or a kind of request."""
    return lambda flow: any(layer in flow.get("l4", {}) or layer in flow.get("l7", {}) for layer in layers)


def http(test: Callable[[dict[str, Any]], bool]) -> Predicate:
    """A request or response of HTTP."""
    return lambda flow: "http" in flow.get("l7", {}) and test(flow["l7"]["http"])


def no(_: Flow) -> bool:
    """No flow: nothing in a lab has that."""
    return False


def _ended(noun: str, value: str, meaning: Callable[[str], Predicate]) -> Iterable[tuple[str, Predicate]]:
    yield f"--{noun} {value}", _either(meaning)
    yield f"--from-{noun} {value}", meaning("source")
    yield f"--to-{noun} {value}", meaning("destination")


def cases(all_flows: list[Flow]) -> dict[str, Predicate]:
    """Flags to their meaning. Some name what is in these flows."""
    web = next(flow["source"] for flow in all_flows if flow.get("source", {}).get("pod_name") == "web")
    packet = next(flow for flow in all_flows if "interface" in flow)
    found: dict[str, Predicate] = {}
    for noun, value, meaning in (
        ("pod", "shop/we", pod("shop", "we")),
        ("pod", "web", pod("default", "web")),
        ("namespace", "fun", pod("fun", "")),
        ("label", "app=db", label("k8s:app=db")),
        ("label", "reserved:host", label("reserved:host")),
        ("identity", str(web["identity"]), identity(web["identity"])),
        ("identity", "host", identity(1)),
        ("workload", "web", workload("web")),
        ("workload", "Pod/db", workload("db", "Pod")),
        ("ip", "10.0.0.0/8", ip("10.0.0.0/8")),
        ("ip", "fd00::/16", ip("fd00::/16")),
        ("port", "5432", port(5432)),
        ("cluster", "default", cluster("default")),
        ("service", "kube-system/kube-dns", lambda _: no),
        ("fqdn", "*.example.org", lambda _: no),
    ):
        found.update(_ended(noun, value, meaning))
    for noun in ("all-namespaces", "from-all-namespaces", "to-all-namespaces"):
        side = {"from": "source", "to": "destination"}.get(noun.partition("-")[0])
        found[f"--{noun}"] = pod("", "")(side) if side else _either(pod("", ""))
    found |= {
        "-n shop --pod db": _either(pod("shop", "db")),
        "--from-pod shop/web --to-pod shop/db": lambda flow: (
            pod("shop", "web")("source")(flow) and pod("shop", "db")("destination")(flow)
        ),
        "--snat-ip 10.0.0.1": no,
        "--node-name node2": field("node_name", "node2"),
        "--node-name 'def*/node1'": field("node_name", "node1"),
        "--node-label kubernetes.io/hostname=node1": field("node_name", "node1"),
        f"--interface {packet['interface']['name']}": lambda flow: (
            flow.get("interface", {}).get("name") == packet["interface"]["name"]
        ),
        "-t drop": event(1),
        "-t drop:133": event(1, 133),
        "-t trace": event(4),
        "-t trace:to-endpoint": event(4, 0),
        "-t policy-verdict": event(5),
        "-t l7": event(129),
        "-t l7 -t drop": lambda flow: event(129)(flow) or event(1)(flow),
        "-t trace-sock": event(7),
        "-t capture": no,
        **{f"--verdict {verdict}": field("verdict", verdict) for verdict in ("FORWARDED", "DROPPED", "AUDIT", "ERROR")},
        **{f"--verdict {verdict}": field("verdict", verdict) for verdict in ("REDIRECTED", "TRACED", "TRANSLATED")},
        "--drop-reason-desc POLICY_DENIED": lambda flow: (
            flow["verdict"] == "DROPPED" and flow.get("drop_reason_desc") == "POLICY_DENIED"
        ),
        **{f"--protocol {name}": protocol(name.upper()) for name in ("tcp", "udp", "sctp", "vrrp", "igmp")},
        **{f"--protocol {name}": protocol(name) for name in ("dns", "http", "kafka")},
        "--protocol icmp": protocol("ICMPv4", "ICMPv6"),
        "--protocol ICMPv4": protocol("ICMPv4"),
        "--protocol icmpv6": protocol("ICMPv6"),
        "--tcp-flags syn": flags("SYN"),
        "--tcp-flags syn,ack": flags("SYN", "ACK"),
        "--tcp-flags fin --tcp-flags syn,ack": lambda flow: flags("FIN")(flow) or flags("SYN", "ACK")(flow),
        "--traffic-direction ingress": field("traffic_direction", "INGRESS"),
        "--traffic-direction egress": field("traffic_direction", "EGRESS"),
        "-4": lambda flow: flow.get("IP", {}).get("ipVersion") == "IPv4",
        "-6": lambda flow: flow.get("IP", {}).get("ipVersion") == "IPv6",
        "--ip-version none": lambda flow: "IP" not in flow,
        "--http-status 201": http(lambda of: of.get("code") == 201),
        "--http-status 5+": http(lambda of: str(of.get("code", "")).startswith("5")),
        "--http-method post": http(lambda of: of["method"] == "POST"),
        "--http-path '^/ord.*/[0-9]$'": http(lambda of: "/orders/7" in of["url"]),
        "--http-url 'db/h'": http(lambda of: "db/h" in of["url"]),
        "--http-header X-Tier:gold": http(lambda of: {"key": "X-Tier", "value": "gold"} in of.get("headers", [])),
        f"--trace-id {TRACE_ID}": lambda flow: (
            flow.get("trace_context", {}).get("parent", {}).get("trace_id") == TRACE_ID
        ),
        "--ip-trace-id 7": no,
        f"--uuid {all_flows[3]['uuid']}": field("uuid", all_flows[3]["uuid"]),
        "--encrypted": lambda flow: bool(flow.get("IP", {}).get("encrypted")),
        "--unencrypted": lambda flow: not flow.get("IP", {}).get("encrypted"),
        "--not --verdict DROPPED": lambda flow: flow["verdict"] != "DROPPED",
        "--pod shop/web --not --port 5432": lambda flow: (
            _either(pod("shop", "web"))(flow) and not _either(port(5432))(flow)
        ),
        """--allowlist '{"dns_query": ["^evil[.]"]}'""": lambda flow: bool(
            re.search("^evil[.]", flow.get("l7", {}).get("dns", {}).get("query", ""))
        ),
        """--allowlist '{"reply": [true]}'""": field("is_reply", True),
        """--denylist '{"reply": [false]}{"protocol": ["icmp"]}'""": lambda flow: (
            not (
                flow.get("is_reply") is False
                or ("is_reply" not in flow and flow["verdict"] == "DROPPED")
                or protocol("ICMPv4", "ICMPv6")(flow)
            )
        ),
    }
    return found


HOLLOW = (
    *("service", "fqdn", "snat-ip", "trace-sock", "capture", "AUDIT", "ERROR", "REDIRECTED", "TRACED", "TRANSLATED"),
    *("sctp", "vrrp", "igmp", "kafka", "ip-trace-id", "--encrypted", "-pod web"),
)
"""Parts of flags that no flow of a lab meets: there the answer is empty."""
FULL = ("--unencrypted",)
"""Flags that every flow meets."""
