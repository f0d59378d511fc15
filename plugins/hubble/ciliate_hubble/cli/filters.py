"""Filter flags to FlowFilters: what is shown, and what isn't.

A list has one FlowFilter, in which several values of a field are alternatives and fields must all match; or, as soon as
a flag is about either end, two that are alternatives: of flows with that source, and of flows with that destination.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ciliate_hubble.api import flow_pb2
from ciliate_hubble.cli.flags import Given, UsageError
from ciliate_hubble.cli.options import AGENT_EVENTS, EVENT_TYPES, FILTER_NAMES, TRACE_POINTS, VERDICTS
from ciliate_hubble.words import RESERVED_NAMES

FlowFilter = flow_pb2.FlowFilter

_GROUPS = (
    ("from-fqdn", "from-ip", "ip", "fqdn", "from-namespace", "namespace", "from-all-namespaces", "all-namespaces"),
    ("to-fqdn", "to-ip", "ip", "fqdn", "to-namespace", "namespace", "to-all-namespaces", "all-namespaces"),
    ("from-fqdn", "from-ip", "ip", "fqdn", "from-pod", "pod"),
    ("to-fqdn", "to-ip", "ip", "fqdn", "to-pod", "pod"),
    *(
        (one, whole)
        for one in ("from-pod", "to-pod", "from-service", "to-service")
        for whole in ("namespace", "all-namespaces")
    ),
    *(
        (noun, f"{side}-{noun}")
        for noun in ("label", "service", "port", "identity", "workload")
        for side in ("from", "to")
    ),
    ("encrypted", "unencrypted"),
)
"""Of each of these, only one may be in a list."""


def _conflicts() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for group in _GROUPS:
        for name in group:
            found.setdefault(name, set()).update(other for other in group if other != name)
    return {name: frozenset(others) for name, others in found.items()}


_CONFLICTS = _conflicts()
_TCP_FLAGS = ("SYN", "FIN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS")
_IP_VERSIONS = {"none": 0, "v4": 1, "ipv4": 1, "4": 1, "v6": 2, "ipv6": 2, "6": 2}
_RESERVED = {name: number for number, name in enumerate(RESERVED_NAMES) if number}


def _event_type(text: str) -> flow_pb2.EventTypeFilter:
    name, colon, sub = text.partition(":")
    number = _number(name, EVENT_TYPES, f"--type: {name!r} is no event type; use {', '.join(EVENT_TYPES)} or a number")
    if not colon:
        return flow_pb2.EventTypeFilter(type=number)
    names = {"trace": TRACE_POINTS, "agent": AGENT_EVENTS}.get(name, ())
    known = {sub_name: place for place, sub_name in enumerate(names)}
    sub_type = _number(sub, known, f"--type: {sub!r} is no sub type of {name}; use {', '.join([*known, 'a number'])}")
    return flow_pb2.EventTypeFilter(type=number, match_sub_type=True, sub_type=sub_type)


def _number(text: str, names: dict[str, int], problem: str, most: int = 2**31 - 1) -> int:
    if text in names:
        return names[text]
    if not (text.isascii() and text.isdecimal()) or int(text) > most:
        raise UsageError(problem)
    return int(text)


def _identity(text: str) -> int:
    problem = f"{text!r} is no identity; use a number or {', '.join(_RESERVED)}"
    return _number(text, _RESERVED, problem, 2**32 - 1)


def _workload(text: str) -> flow_pb2.Workload:
    kind, slash, name = text.partition("/")
    return flow_pb2.Workload(kind=kind, name=name) if slash else flow_pb2.Workload(name=text)


def _tcp_flags(text: str) -> flow_pb2.TCPFlags:
    words = text.upper().split(",")
    if unknown := [word for word in words if word not in _TCP_FLAGS]:
        raise UsageError(f"--tcp-flags: {unknown[0]!r} is none of {', '.join(_TCP_FLAGS).lower()}")
    return flow_pb2.TCPFlags(**dict.fromkeys(words, True))


def _enum(flag: str, values: Any, names: Iterable[str]) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            return int(values.Value(text))
        except ValueError:
            raise UsageError(f"--{flag}: {text!r} is none of {', '.join(names)}") from None

    return convert


def _direction(text: str) -> int:
    if text.lower() not in ("ingress", "egress"):
        raise UsageError(f"--traffic-direction: {text!r} is neither ingress nor egress")
    return int(flow_pb2.TrafficDirection.Value(text.upper()))


def _ip_version(text: str) -> int:
    if text.lower() not in _IP_VERSIONS:
        raise UsageError(f"--ip-version: {text!r} is none of none, v4, v6")
    return _IP_VERSIONS[text.lower()]


def _header(text: str) -> flow_pb2.HTTPHeader:
    key, colon, value = text.partition(":")
    if not colon:
        raise UsageError(f"--http-header: {text!r} has no colon; write NAME:VALUE")
    return flow_pb2.HTTPHeader(key=key, value=value)


def _trace_number(text: str) -> int:
    number = _number(text, {}, f"--ip-trace-id: {text!r} is no number above 0", 2**64 - 1)
    if not number:
        raise UsageError("--ip-trace-id: must be above 0")
    return number


_ENDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "pod": ("pod", str),
    "service": ("service", str),
    "workload": ("workload", _workload),
    "label": ("label", str),
    "identity": ("identity", _identity),
    "ip": ("ip", str),
    "fqdn": ("fqdn", str),
    "port": ("port", str),
    "cluster": ("cluster_name", str),
}
"""Flags about an end (with from- and to-): the field behind `source_` or `destination_`, and how a value is read."""
_WHOLE: dict[str, tuple[str, Callable[[str], Any]]] = {
    "snat-ip": ("source_ip_xlated", str),
    "node-name": ("node_name", str),
    "node-label": ("node_labels", str),
    "interface": ("interface", lambda text: flow_pb2.NetworkInterface(name=text)),
    "type": ("event_type", _event_type),
    "verdict": ("verdict", _enum("verdict", flow_pb2.Verdict, VERDICTS)),
    "drop-reason-desc": (
        "drop_reason_desc",
        _enum("drop-reason-desc", flow_pb2.DropReason, ("Hubble's names of reasons", "as POLICY_DENIED")),
    ),
    "protocol": ("protocol", str),
    "tcp-flags": ("tcp_flags", _tcp_flags),
    "traffic-direction": ("traffic_direction", _direction),
    "ipv4": ("ip_version", lambda _: 1),
    "ipv6": ("ip_version", lambda _: 2),
    "ip-version": ("ip_version", _ip_version),
    "http-status": ("http_status_code", str),
    "http-method": ("http_method", str),
    "http-path": ("http_path", str),
    "http-url": ("http_url", str),
    "http-header": ("http_header", _header),
    "trace-id": ("trace_id", str),
    "ip-trace-id": ("ip_trace_id", _trace_number),
    "uuid": ("uuid", str),
    "encrypted": ("encrypted", lambda _: True),
    "unencrypted": ("encrypted", lambda _: False),
}


@dataclass(frozen=True)
class _Half:
    """One of a list's FlowFilters while its flags are read; namespaces are put before names when all are there."""

    filter: FlowFilter = field(default_factory=FlowFilter)
    namespaces: dict[str, list[str]] = field(default_factory=lambda: {"source": [], "destination": []})

    def end(self, end: str, noun: str, value: str) -> None:
        """Take in a flag about one end."""
        if noun in ("namespace", "all-namespaces"):
            self.namespaces[end].append(value if noun == "namespace" else "")
            return
        column, convert = _ENDS[noun]
        getattr(self.filter, f"{end}_{column}").append(convert(value))

    def finish(self) -> None:
        """Put namespaces before the names of pods and services; where there are none, a namespace is all its pods."""
        for end, namespaces in self.namespaces.items():
            pods, services = getattr(self.filter, f"{end}_pod"), getattr(self.filter, f"{end}_service")
            if namespaces and not pods and not services:
                pods.extend(f"{namespace}/" for namespace in namespaces)
            elif namespaces:
                for names in (pods, services):
                    whole = [_within(name, namespace) for name in names for namespace in namespaces]
                    del names[:]
                    names.extend(whole)


@dataclass
class _List:
    """One list while its flags are read: of flows with a source, and of flows with a destination, as flags say."""

    halves: tuple[_Half, _Half] = field(default_factory=lambda: (_Half(), _Half()))
    two: bool = False  # whether a flag was about either end; else both halves are the same
    seen: dict[str, None] = field(default_factory=dict)

    def add(self, name: str, value: str) -> None:
        """Take in one flag. Raises UsageError."""
        for other in self.seen:
            if other in _CONFLICTS.get(name, ()):
                raise UsageError(f"--{other} and --{name} can't be combined")
        self.seen[name] = None
        side, _, noun = name.partition("-")
        if name == "cel-expression" or name in _WHOLE:
            for half in self.halves:
                _append(half.filter, name, value)
        elif side in ("from", "to"):
            for half in self.halves:
                half.end("source" if side == "from" else "destination", noun, value)
        else:
            self.two = True
            self.halves[0].end("source", name, value)
            self.halves[1].end("destination", name, value)

    def filters(self) -> list[FlowFilter]:
        """The FlowFilters that all flags come to. Raises UsageError."""
        if not self.seen:
            return []
        made = self.halves if self.two else self.halves[:1]
        for half in made:
            half.finish()
        return [half.filter for half in made]


def _append(flow_filter: FlowFilter, name: str, value: str) -> None:
    if name == "cel-expression":
        flow_filter.experimental.cel_expression.append(value)
        return
    column, convert = _WHOLE[name]
    getattr(flow_filter, column).append(convert(value))


def _within(name: str, namespace: str) -> str:
    given, slash, rest = name.partition("/")
    if not slash:
        return f"{namespace}/{name}"
    if given != namespace:
        raise UsageError(f"{name!r} is not in namespace {namespace!r}: leave one of the two out")
    return f"{namespace}/{rest}"


def flow_filters(given: Iterable[Given]) -> tuple[list[FlowFilter], list[FlowFilter]]:
    """The lists of what is shown and of what isn't. Raises UsageError."""
    allowed, denied = _List(), _List()
    raw: dict[str, list[FlowFilter]] = {"allowlist": [], "denylist": []}
    negated = False
    for flag in given:
        if flag.name == "not":
            if negated:
                raise UsageError("--not twice in a row: it concerns the one filter that follows")
            negated = True
        elif flag.name in raw:
            raw[flag.name] += _parsed(flag)
        elif flag.name in FILTER_NAMES:
            (denied if negated else allowed).add(flag.name, flag.value)
            negated = False
    if negated:
        raise UsageError("--not has no filter behind it")
    return allowed.filters() + raw["allowlist"], denied.filters() + raw["denylist"]


def _parsed(flag: Given) -> list[FlowFilter]:
    """The FlowFilters of JSON objects, one after another."""
    import json

    from google.protobuf import json_format

    decoder, text, found = json.JSONDecoder(), flag.value.strip(), []
    while text:
        try:
            value, end = decoder.raw_decode(text)
            found.append(json_format.ParseDict(value, FlowFilter()) if isinstance(value, dict) else None)
        except (ValueError, json_format.ParseError) as error:
            raise UsageError(f"--{flag.name}: {flag.value!r} is no FlowFilter in JSON: {error}") from error
        if found[-1] is None:
            raise UsageError(f"--{flag.name}: {text[:end]!r} is no JSON object; several may follow each other")
        text = text[end:].lstrip()
    return [each for each in found if each is not None]
