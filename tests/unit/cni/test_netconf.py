"""Network configurations and environments: every byte string is parsed or refused by CNI's own codes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ciliate_cni.errors import CniError, Code
from ciliate_cni.netconf import VERSIONS, parse_call, version_of
from ciliate_cni.wire import Request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

GOOD = Request(b"ADD", b"abc-1", b"/run/netns/x", b"eth0", b"", b"/opt/cni/bin", 0, b"")


def request(command: str = "ADD", config: bytes | None = None, **conf: Any) -> Request:
    body = json.dumps({"cniVersion": "1.1.0", "name": "n", "type": "ciliate-cni", **conf}).encode()
    return replace(GOOD, command=command.encode(), config=body if config is None else config)


def refusal(call: Request) -> CniError:
    with pytest.raises(CniError) as caught:
        parse_call(call)
    return caught.value


@pytest.mark.parametrize("version", VERSIONS)
def test_every_supported_version_is_taken(version: str) -> None:
    assert parse_call(request(cniVersion=version)).conf.cni_version == version


@pytest.mark.parametrize("version", ["0.1.0", "0.3.0", "2.0.0", "1.1", "", "one"])
def test_other_versions_are_incompatible(version: str) -> None:
    error = refusal(request(cniVersion=version))
    assert error.code is Code.INCOMPATIBLE_VERSION
    assert "0.3.1" in error.details


@pytest.mark.parametrize(("command", "version"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "0.4.0")])
def test_a_verb_newer_than_the_version_is_incompatible(command: str, version: str) -> None:
    assert refusal(request(command, cniVersion=version)).code is Code.INCOMPATIBLE_VERSION


@pytest.mark.parametrize("config", [b"", b"{", b"[]x", b'{"name": "\xff"}', b'{"a":1}}', b"\x00", b"[" * 100_000])
def test_what_is_not_json_is_code_6(config: bytes) -> None:
    assert refusal(request(config=config)).code is Code.DECODING


@pytest.mark.parametrize("conf", [{"name": 3}, {"mtu": "big"}, {"prevResult": []}, {"mtu": 5}, {"name": ""}])
def test_json_of_a_wrong_shape_is_code_7(conf: dict[str, Any]) -> None:
    assert refusal(request(**conf)).code is Code.CONFIGURATION


@pytest.mark.parametrize(
    "change",
    [
        {"container_id": b""},
        {"container_id": b"../x"},
        {"container_id": b"a" * 256},
        {"container_id": b"\xff"},
        {"interface": b""},
        {"interface": b"a/b"},
        {"interface": b"sixteen-bytes-xx"},
        {"interface": b"lo"},
        {"interface": b"a b"},
        {"args": b"K8S_POD_NAME"},
        {"args": b"=x"},
        {"args": b"\xfe"},
        {"command": b"UPDATE"},
        {"command": b""},
    ],
)
def test_a_bad_environment_is_code_4(change: dict[str, bytes]) -> None:
    assert refusal(replace(request(), **change)).code is Code.ENVIRONMENT  # type: ignore[arg-type]


def test_arguments_are_pairs() -> None:
    call = parse_call(replace(request(), args=b"IgnoreUnknown=1;K8S_POD_NAME=a=b;;X="))
    assert call.args == {"IgnoreUnknown": "1", "K8S_POD_NAME": "a=b", "X": ""}


@given(st.builds(Request, *[st.binary(max_size=60)] * 6, st.integers(0, 200), st.binary(max_size=300)))
def test_any_request_is_parsed_or_refused(call: Request) -> None:
    with_verb = replace(call, command=b"ADD")
    for candidate in (call, with_verb):
        try:
            parse_call(candidate)
        except CniError as error:
            assert error.msg
    version_of(call.config)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_keys = st.sampled_from(["cniVersion", "name", "type", "mtu", "prevResult", "cni.dev/valid-attachments", "x"])


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine making JSON is slow
@given(st.dictionaries(_keys, _json), st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS"]))
def test_any_json_is_parsed_or_refused(conf: dict[str, Any], command: str) -> None:
    try:
        parse_call(request(command, config=json.dumps(conf).encode()))
    except CniError as error:
        assert error.code in (Code.CONFIGURATION, Code.DECODING, Code.INCOMPATIBLE_VERSION)
