"""The shim built with sanitizers: whatever comes on standard input, it answers in CNI's shape or hands it on."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.cni import shim

_SOCKET = b'"socket":"/nowhere/cni.sock"'
_tokens = st.sampled_from(
    [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b'"socket"', _SOCKET, b'"a":1', b" ", b"\0", b"\xff"]
)
_garbage = st.binary(max_size=40) | st.lists(_tokens, max_size=25).map(b"".join)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    binary = tmp_path_factory.mktemp("shim") / "ciliate-cni"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["gcc", *flags, "-o", binary, shim.ROOM / "shim" / "ciliate-cni.c"], check=True, capture_output=True)
    yield binary


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=_garbage, command=st.sampled_from(["ADD", "VERSION", "STATUS", "x"]))
def test_any_input_is_answered(checked: Path, config: bytes, command: str) -> None:
    env = {"CNI_COMMAND": command, "CNI_NETNS": "/no", "CILIATE_CNI_SOCKET": "/nowhere/else.sock"}
    done = subprocess.run([checked], input=config, env=env, capture_output=True, check=False, timeout=30)
    assert done.stderr == b""
    answer = json.loads(done.stdout)
    if command == "VERSION":
        assert done.returncode == 0
        assert answer["supportedVersions"]
    else:
        assert done.returncode == 1
        assert answer["code"] in (7, 11, 50)


@pytest.mark.parametrize(
    "config",
    [
        b'{"socket":"' + b"x" * 5000 + b'"}',
        b'{"socket":"/a\\"b"}',
        b'{"socket":"unfinished',
        b'{"socket":"x\\',
        b'{"socket":""}',
        b'{"socket":',
        b'{"cniVersion":"' + b"1" * 100 + b'"}',
        b'{"cniVersion":"\\u0031"}',
        b"[" * 100_000,
        b'"' * 99_999,
        b"{" + b'"a":"b",' * 120_000,
    ],
)
def test_awkward_input_is_answered(checked: Path, config: bytes) -> None:
    env = {"CNI_COMMAND": "ADD", "CILIATE_CNI_SOCKET": "/nowhere/else.sock"}
    done = subprocess.run([checked], input=config, env=env, capture_output=True, check=False, timeout=30)
    assert done.stderr == b""
    assert json.loads(done.stdout)["code"] in (7, 11)
