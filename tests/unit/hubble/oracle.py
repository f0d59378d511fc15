"""FlowFilter, field by field, over one flow's message: slow and obvious, from the table of Hubble's API alone."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any

from ciliate_hubble.api import flow_pb2 as pb

NAME_PART = "[-.0-9a-z]*"


def wanted(flow: pb.Flow, whitelist: list[pb.FlowFilter], blacklist: list[pb.FlowFilter]) -> bool:
    allowed = not whitelist or any(matches(flow, one) for one in whitelist)
    return allowed and not any(matches(flow, one) for one in blacklist)


def matches(flow: pb.Flow, one: pb.FlowFilter) -> bool:
    return all(any(FIELDS[field.name](flow, value) for value in values) for field, values in one.ListFields())


def ip(address: str, wanted: str) -> bool:
    if not address:
        return False
    found, network = ipaddress.ip_address(address), ipaddress.ip_network(wanted, strict=False)
    return found.version == network.version and found in network


def pod(end: pb.Endpoint, wanted: str) -> bool:
    namespace, separator, prefix = wanted.partition("/")
    if not separator:
        namespace, prefix = "default", wanted
    if not end.namespace and not end.pod_name:
        return False
    return (not namespace or end.namespace == namespace) and end.pod_name.startswith(prefix)


def label(labels: list[str], wanted: str) -> bool:
    return all(_requirement(labels, one.strip()) for one in re.split(r",(?![^()]*\))", wanted))


def _requirement(labels: list[str], one: str) -> bool:
    for pattern, negated in ((r"(\S+) notin \((.*)\)", True), (r"(\S+) in \((.*)\)", False)):
        if found := re.fullmatch(pattern, one):
            values = {value.strip() for value in found[2].split(",")}
            return any(value in values for value in _values(labels, found[1])) != negated
    if found := re.fullmatch(r"([^!=]+)!=(.*)", one):
        return found[2] not in _values(labels, found[1])
    if found := re.fullmatch(r"([^!=]+)==?(.*)", one):
        return found[2] in _values(labels, found[1])
    if one.startswith("!"):
        return not _values(labels, one[1:])
    return bool(_values(labels, one))


def _values(labels: list[str], key: str) -> list[str]:
    source, separator, name = key.partition(":")
    if not separator:
        source, name = "any", key
    found = []
    for text in labels:
        whole, _, value = text.partition("=")
        its_source, separator, its_key = whole.partition(":")
        if not separator:
            its_source, its_key = "", whole
        if its_key == name and source in ("any", its_source):
            found.append(value)
    return found


def workload(end: pb.Endpoint, wanted: pb.Workload) -> bool:
    return any(
        (not wanted.name or one.name == wanted.name) and (not wanted.kind or one.kind == wanted.kind)
        for one in end.workloads
    )


def port(flow: pb.Flow, side: str, wanted: str) -> bool:
    protocol = flow.l4.WhichOneof("protocol")
    if protocol not in ("TCP", "UDP", "SCTP"):
        return False
    return bool(getattr(getattr(flow.l4, protocol), f"{side}_port") == int(wanted))


def event_type(flow: pb.Flow, wanted: pb.EventTypeFilter) -> bool:
    if wanted.type and flow.event_type.type != wanted.type:
        return False
    return not wanted.match_sub_type or flow.event_type.sub_type == wanted.sub_type


def reply(flow: pb.Flow, wanted: bool) -> bool:
    if flow.HasField("is_reply"):
        return flow.is_reply.value == wanted
    return flow.verdict == pb.DROPPED and not wanted


def protocol(flow: pb.Flow, wanted: str) -> bool:
    found = {(flow.l4.WhichOneof("protocol") or "").lower()}
    found |= {"icmp"} if found & {"icmpv4", "icmpv6"} else set()
    found.add(flow.l7.WhichOneof("record") or "")
    return wanted.lower() in found


def tcp_flags(flow: pb.Flow, wanted: pb.TCPFlags) -> bool:
    if flow.l4.WhichOneof("protocol") != "TCP":
        return False
    return all(getattr(flow.l4.TCP.flags, field.name) for field, _ in wanted.ListFields())


def interface(flow: pb.Flow, wanted: pb.NetworkInterface) -> bool:
    found = flow.interface
    return (not wanted.index or found.index == wanted.index) and (not wanted.name or found.name == wanted.name)


def status_code(flow: pb.Flow, wanted: str) -> bool:
    code = str(flow.l7.http.code or "")
    return code.startswith(wanted[:-1]) and bool(code) if wanted.endswith("+") else code == wanted


def name(found: str, pattern: str) -> bool:
    parts = pattern.removesuffix(".").lower().split("*")
    return re.fullmatch(NAME_PART.join(map(re.escape, parts)), found.removesuffix(".").lower()) is not None


def node_name(flow: pb.Flow, pattern: str) -> bool:
    if not flow.node_name:
        return False
    cluster, _, node = ("/" + pattern).rpartition("/")
    full = flow.node_name if "/" in flow.node_name else f"default/{flow.node_name}"
    its_cluster, _, its_node = full.rpartition("/")
    cluster = cluster.removeprefix("/")
    return (not cluster or name(its_cluster, cluster)) and (not node or name(its_node, node))


def is_http(flow: pb.Flow) -> bool:
    return bool(flow.l7.WhichOneof("record") == "http")


def path_of(url: str) -> str:
    return re.sub(r"^[a-z]+://[^/?#]*", "", url).partition("?")[0].partition("#")[0]


def _both(make: Callable[[str], Callable[[pb.Flow, Any], bool]], suffix: str) -> dict[str, Any]:
    return {f"{side}_{suffix}": make(side) for side in ("source", "destination")}


FIELDS: dict[str, Callable[[pb.Flow, Any], bool]] = {
    **_both(lambda side: lambda f, v: ip(getattr(f.IP, side), v), "ip"),
    **_both(lambda side: lambda f, v: pod(getattr(f, side), v), "pod"),
    **_both(lambda side: lambda f, v: label(list(getattr(f, side).labels), v), "label"),
    **_both(lambda side: lambda f, v: workload(getattr(f, side), v), "workload"),
    **_both(lambda side: lambda f, v: bool(getattr(f, side).identity == v), "identity"),
    **_both(lambda side: lambda f, v: bool(getattr(f, side).cluster_name == v), "cluster_name"),
    **_both(lambda side: lambda f, v: port(f, side, v), "port"),
    **_both(lambda side: lambda f, v: any(name(one, v) for one in getattr(f, f"{side}_names")), "fqdn"),
    **_both(lambda side: lambda f, v: bool(getattr(f, f"{side}_service").name) and False, "service"),
    "source_ip_xlated": lambda f, v: ip(f.IP.source_xlated, v),
    "verdict": lambda f, v: bool(f.verdict == v),
    "traffic_direction": lambda f, v: bool(f.traffic_direction == v),
    "ip_version": lambda f, v: bool(f.IP.ipVersion == v),
    "event_type": event_type,
    "reply": reply,
    "drop_reason_desc": lambda f, v: bool(f.verdict == pb.DROPPED and f.drop_reason_desc == v),
    "protocol": protocol,
    "tcp_flags": tcp_flags,
    "interface": interface,
    "encrypted": lambda f, v: bool(f.IP.encrypted == v),
    "uuid": lambda f, v: bool(f.uuid == v),
    "node_name": node_name,
    "node_labels": lambda f, v: label(list(f.node_labels), v),
    "trace_id": lambda f, v: bool(f.trace_context.parent.trace_id == v and v),
    "ip_trace_id": lambda f, v: bool(f.ip_trace_id.trace_id == v),
    "dns_query": lambda f, v: f.l7.WhichOneof("record") == "dns" and re.search(v, f.l7.dns.query) is not None,
    "http_status_code": lambda f, v: is_http(f) and status_code(f, v),
    "http_method": lambda f, v: is_http(f) and f.l7.http.method.lower() == v.lower(),
    "http_path": lambda f, v: is_http(f) and re.search(v, path_of(f.l7.http.url)) is not None,
    "http_url": lambda f, v: is_http(f) and re.search(v, f.l7.http.url) is not None,
    "http_header": lambda f, v: is_http(f) and any((h.key, h.value) == (v.key, v.value) for h in f.l7.http.headers),
}
