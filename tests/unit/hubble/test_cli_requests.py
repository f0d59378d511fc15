"""Flags of `ciliate hubble observe` to the request that they make."""

from __future__ import annotations

import json
import shlex
import time
from typing import Any

import pytest
from ciliate_hubble.api import observer_pb2
from ciliate_hubble.cli.flags import UsageError, parse
from ciliate_hubble.cli.options import OBSERVE
from ciliate_hubble.cli.request import MASK, get_flows_request
from ciliate_hubble.cli.times import duration, elapsed, layout, moment
from google.protobuf import json_format

from tests.unit.hubble.serving import requests

NOW = 1_767_323_045_000_000_000


def _request(line: str) -> observer_pb2.GetFlowsRequest:
    given, words = parse(shlex.split(line), OBSERVE)
    assert not words
    return get_flows_request(given, NOW)


def as_written(request: observer_pb2.GetFlowsRequest) -> dict[str, Any]:
    """A request as requests.txt has it: the usual mask is left out."""
    paths = list(request.field_mask.paths)
    bare = observer_pb2.GetFlowsRequest()
    bare.CopyFrom(request)
    bare.ClearField("field_mask")
    found: dict[str, Any] = json_format.MessageToDict(bare, preserving_proto_field_name=True)
    return found | ({"field_mask": paths} if paths and paths != list(MASK) else {})


@pytest.mark.parametrize(("line", "expected"), requests())
def test_flags_make_the_request_of_hubble(line: str, expected: str) -> None:
    if expected == "refused":
        with pytest.raises(UsageError):
            _request(line)
    else:
        assert as_written(_request(line)) == json.loads(expected)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("--pod a --to-pod b", "--pod and --to-pod can't be combined"),
        ("--not --not --pod a", "--not twice in a row"),
        ("--pod a --not", "--not has no filter behind it"),
        ("-t trace:up", "'up' is no sub type of trace; use to-endpoint"),
        ("--identity moon", "'moon' is no identity; use a number or host, world"),
        ("--verdict dropped", "--verdict: 'dropped' is none of FORWARDED, DROPPED"),
        ("--ip-version 5", "--ip-version: '5' is none of none, v4, v6"),
        ("--since yesterday", "--since: 'yesterday' is no time; write 5m"),
        ("--field-mask time", "--field-mask can't be combined with -o compact"),
        ("-o json --field-mask source.nope", "a flow has no field 'source.nope'"),
        ("-o table -f", "-o table can't be combined with --follow"),
        ("--nope", "unknown flag --nope"),
        ("-4q", "unknown flag -q"),
        ("--pod", r"--pod needs a value: --pod \[NAMESPACE/\]PREFIX"),
        ("--all=perhaps", "--all: 'perhaps' is neither true nor false"),
        ("--allowlist [1]", r"'\[1\]' is no JSON object"),
        ('--denylist \'{"verdict": "MAYBE"}\'', "--denylist: .* is no FlowFilter in JSON"),
        ("-n a --pod b/c", "'b/c' is not in namespace 'a'"),
    ],
)
def test_a_refusal_says_what_and_how_to_mend_it(line: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        _request(line)


def test_a_mask_asks_for_policies_when_they_are_shown() -> None:
    usual = set(_request("").field_mask.paths)
    assert {"ingress_denied_by", "drop_reason_desc"} <= set(_request("--rule").field_mask.paths) - usual
    assert "egress_allowed_by" in _request("--print-policy-names").field_mask.paths
    assert not _request("--rule -o json").field_mask.paths


def test_relative_times_are_counted_from_now() -> None:
    request = _request("--since 1m30s --until 500ms")
    assert request.since.ToNanoseconds() == NOW - 90 * 10**9
    assert request.until.ToNanoseconds() == NOW - 5 * 10**8


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1h30m", 5400 * 10**9),
        ("1.5h", 5400 * 10**9),
        ("-3s", -3 * 10**9),
        ("2us", 2000),
        ("0", 0),
        ("1m0.5s", 605 * 10**8),
    ],
)
def test_durations_are_those_of_go(text: str, nanoseconds: int) -> None:
    assert duration("--x", text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "1h30", "s", "1 s", "h1", "1d", "--1s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        duration("--x", text)


def test_a_time_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="2026-02-31"):
        moment("--since", "2026-02-31", NOW)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (60, "1m0s"), (3723, "1h2m3s"), (86400, "24h0m0s")]
)
def test_spans_are_printed_as_go_does(seconds: int, text: str) -> None:
    assert elapsed(seconds * 10**9) == text


def test_times_are_printed_in_the_zone_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    try:
        assert layout("RFC3339Nano")(1767323045, 120) == "2026-01-02T04:04:05.00000012+01:00"
        assert layout("StampMilli")(1767323045, 120) == "Jan  2 04:04:05.000"
    finally:
        monkeypatch.undo()
        time.tzset()
