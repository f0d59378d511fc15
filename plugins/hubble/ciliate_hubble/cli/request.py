"""Flags to a GetFlowsRequest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from ciliate_hubble.api import flow_pb2, observer_pb2
from ciliate_hubble.cli.filters import flow_filters
from ciliate_hubble.cli.flags import Given, UsageError
from ciliate_hubble.cli.times import moment

SHOWN = 20
"""Flows that are asked for if nothing says how many."""
ALL = 2**64 - 1
OUTPUTS = {"compact": "compact", "dict": "dict", "table": "table", "tab": "table", "json": "json", "jsonpb": "json"}
MASK = (
    *("time", "verdict", "ethernet", "IP", "l4", "source.identity", "source.namespace", "source.pod_name"),
    *("destination.identity", "destination.namespace", "destination.pod_name", "Type", "node_name", "l7"),
    *("event_type", "source_service", "destination_service", "is_reply", "Summary", "ip_trace_id"),
    *("source_names", "destination_names", "traffic_direction", "policy_match_type", "sock_xlate_point"),
    "debug_capture_point",
)
"""What compact, dict and table show. (The real program leaves the last six out, and then can't show them.)"""
MASK_POLICIES = (
    *("drop_reason", "drop_reason_desc", "egress_allowed_by", "ingress_allowed_by", "egress_denied_by"),
    *("ingress_denied_by", "policy_log", "file"),
)
"""What --print-policy-names and --rule show beside."""


@dataclass(frozen=True)
class Selection:
    """Which flows are asked for, in time and number."""

    number: int
    first: bool
    follow: bool
    since: Timestamp | None
    until: Timestamp | None


def last_value(given: Iterable[Given], name: str, default: str = "") -> str:
    """The value of a flag: where it was given several times, the last."""
    return next((flag.value for flag in reversed(list(given)) if flag.name == name), default)


def switched(given: Iterable[Given], name: str, default: bool = False) -> bool:
    """Whether a switch is on."""
    return last_value(given, name, "true" if default else "false") == "true"


def output_format(given: Sequence[Given]) -> str:
    """compact, dict, table or json. Raises UsageError."""
    text = last_value(given, "output", "compact")
    if text.lower() not in OUTPUTS:
        raise UsageError(f"-o {text}: use compact, dict, table, json or jsonpb")
    return OUTPUTS[text.lower()]


def selection(given: Sequence[Given], now: int) -> Selection:
    """Which flows; `now` is in nanoseconds. Raises UsageError."""
    last, first = _count(given, "last"), _count(given, "first")
    everything, follow = switched(given, "all"), switched(given, "follow")
    for one, other, both in (
        ("first", "last", first and last),
        ("first", "all", first and everything),
        ("first", "follow", first and follow),
        ("last", "all", last and everything),
    ):
        if both:
            raise UsageError(f"--{one} and --{other} can't be combined")
    since, until = _time(given, "since", now), _time(given, "until", now)
    number = ALL if everything else first or last
    if not number and not follow and since is None and until is None:
        number = SHOWN
    return Selection(number, bool(first), follow, since, None if follow else until)


def get_flows_request(given: Sequence[Given], now: int) -> observer_pb2.GetFlowsRequest:
    """The request that `hubble observe` with these flags sends. Raises UsageError."""
    which, output = selection(given, now), output_format(given)
    if output == "table" and which.follow:
        raise UsageError("-o table can't be combined with --follow: its columns are as wide as all flows need")
    allowed, denied = flow_filters(given)
    request = observer_pb2.GetFlowsRequest(
        number=which.number,
        first=which.first,
        follow=which.follow,
        since=which.since,
        until=which.until,
        whitelist=allowed,
        blacklist=denied,
    )
    request.field_mask.paths.extend(_mask(given, output))
    return request


def _mask(given: Sequence[Given], output: str) -> tuple[str, ...]:
    wanted = [path for flag in given if flag.name == "field-mask" for path in flag.value.split(",") if path]
    if wanted:
        if output != "json":
            raise UsageError(
                f"--field-mask can't be combined with -o {output}, which shows fields of its own; use -o json"
            )
        for path in wanted:
            _check_path(path)
        return tuple(wanted)
    if output == "json" or not switched(given, "use-default-field-masks", True):
        return ()
    names = switched(given, "print-policy-names") or switched(given, "rule")
    return MASK + (MASK_POLICIES if names else ())


def _check_path(path: str) -> None:
    fields = flow_pb2.Flow.DESCRIPTOR.fields_by_name
    for name in path.split("."):
        if name not in fields:
            raise UsageError(f"--field-mask: a flow has no field {path!r}")
        message = fields[name].message_type
        fields = {} if message is None else message.fields_by_name


def _count(given: Sequence[Given], name: str) -> int:
    text = last_value(given, name, "0")
    if not (text.isascii() and text.isdecimal()) or int(text) > ALL:
        raise UsageError(f"--{name}: {text!r} is no number of flows")
    return int(text)


def _time(given: Sequence[Given], name: str, now: int) -> Timestamp | None:
    if not (text := last_value(given, name)):
        return None
    seconds, nanoseconds = divmod(moment(f"--{name}", text, now), 10**9)
    return Timestamp(seconds=seconds, nanos=nanoseconds)
