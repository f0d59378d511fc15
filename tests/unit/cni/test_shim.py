"""The shim alone: what it answers without an agent, and what it hands to one."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from ciliate_cni import wire
from ciliate_cni.deletequeue import DeleteQueue
from ciliate_cni.server import Answer, Caller, CniServer
from ciliate_cni.verbs import refuse_frame

from tests.unit.cni import shim


def test_version_needs_no_agent() -> None:
    outcome = shim.call("VERSION", b'{"cniVersion": "0.4.0"}')
    assert outcome.status == 0
    assert outcome.json == {"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]}


@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)])
def test_without_an_agent_a_call_fails_at_once(run_dir: Path, command: str, code: int) -> None:
    outcome = shim.call(command, shim.conf(run_dir / "cni.sock", "1.0.0"))
    assert outcome.status == 1
    assert outcome.json["code"] == code
    assert outcome.json["cniVersion"] == "1.0.0"
    assert str(run_dir) in outcome.json["msg"]


def test_a_dead_socket_is_as_good_as_none(run_dir: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(run_dir / "cni.sock"))
    assert shim.call("ADD", shim.conf(run_dir / "cni.sock")).json["code"] == 11


def test_without_an_agent_a_deletion_is_queued_once(run_dir: Path) -> None:
    config = shim.conf(run_dir / "cni.sock")
    for _ in range(2):
        outcome = shim.call("DEL", config, containerid="c1", ifname="eth0", netns="")
        assert (outcome.status, outcome.output) == (0, b"")
    queue = DeleteQueue(run_dir)
    ((path, request),) = queue.pending()
    assert request.attachment == (b"c1", b"eth0")
    assert request.config == config
    assert queue.holds(b"c1", b"eth0")
    assert path.stat().st_mode & 0o777 == 0o600
    queue.settle(b"c1", b"eth0")
    assert queue.pending() == []


def test_a_deletion_is_queued_even_if_the_run_folder_is_gone(run_dir: Path) -> None:
    assert shim.call("DEL", shim.conf(run_dir / "new" / "cni.sock"), containerid="c", ifname="e").status == 0
    assert len(DeleteQueue(run_dir / "new").pending()) == 1


def test_an_unreadable_queued_deletion_is_set_aside(run_dir: Path) -> None:
    folder = run_dir / "delete-queue"
    folder.mkdir()
    (folder / "0.del").write_bytes(b"nonsense")
    assert DeleteQueue(run_dir).pending() == []
    assert (folder / "0.bad").read_bytes() == b"nonsense"


def test_a_huge_configuration_is_code_6(run_dir: Path) -> None:
    outcome = shim.call("ADD", shim.conf(run_dir / "cni.sock", filler="x" * (1 << 20)))
    assert outcome.json["code"] == 6


def test_a_socket_path_that_is_too_long_is_named() -> None:
    assert "107" in shim.call("ADD", shim.conf("/" + "x" * 300)).json["msg"]


def test_no_command_is_code_4() -> None:
    assert shim.call("", b"{}").json["code"] == 4


@pytest.mark.parametrize(
    "config",
    [
        b'{"a": {"socket": "/wrong"}, "b": ["socket", "x"], "c\\"": 1, "socket" : "%s", "z":',
        b'{"x": "socket", "y": "\\"socket\\": \\"/wrong\\"", "socket":"%s"} garbage \xff\xfe',
        b'\xff{"socket":"%s"',
    ],
)
async def test_the_socket_is_found_in_any_configuration_that_names_it(run_dir: Path, config: bytes) -> None:
    path = run_dir / "cni.sock"
    seen = await _ask(path, config.replace(b"%s", str(path).encode()))
    assert seen[0].config.endswith(config[-1:])


async def test_the_environment_names_the_socket_of_a_configuration_without_one(run_dir: Path) -> None:
    path = run_dir / "cni.sock"
    seen = await _ask(path, b"garbage \x00\xff", {"CILIATE_CNI_SOCKET": str(path)})
    assert seen[0].config == b"garbage \x00\xff"


async def test_everything_reaches_the_agent(run_dir: Path) -> None:
    path = run_dir / "cni.sock"
    variables = {"containerid": "c", "ifname": "eth0", "netns": "/proc/self/ns/net", "args": "A=1", "path": "/p"}
    config = shim.conf(path, filler="y" * 900_000)
    seen = await _ask(path, config, **variables)
    request = seen[0]
    assert request == wire.Request(b"ADD", b"c", b"/proc/self/ns/net", b"eth0", b"A=1", b"/p", 0, config)
    assert seen[1] == Path("/proc/self/ns/net").stat().st_ino


async def test_a_namespace_that_can_not_be_opened_is_told_by_errno(run_dir: Path) -> None:
    path = run_dir / "cni.sock"
    seen = await _ask(path, shim.conf(path), netns="/no/such")
    assert (seen[0].netns_errno, seen[1]) == (2, None)


async def _ask(
    socket_path: Path, config: bytes, extra: dict[str, str] | None = None, /, **variables: str
) -> tuple[wire.Request, int | None]:
    """One ADD against a server that only looks; the request, and the inode of the namespace that came with it."""
    seen: list[tuple[wire.Request, int | None]] = []

    async def look(request: wire.Request, caller: Caller) -> Answer:
        seen.append((request, os.fstat(caller.netns).st_ino if caller.netns is not None else None))
        return Answer(0, json.dumps({"ok": True}).encode())

    server = asyncio.create_task(CniServer(socket_path, look, refuse_frame).run())
    while not socket_path.exists():
        await asyncio.sleep(0)
    try:
        outcome = await asyncio.to_thread(shim.call, "ADD", config, extra, **variables)
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)
    assert (outcome.status, outcome.json) == (0, {"ok": True})
    return seen[0]
