"""ciliate-hold: sockets outlive those who use them, and what comes meanwhile waits instead of being refused."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ciliate_node
import pytest
from ciliate.held import held_sockets

from tests.unit.processes.parts import reached

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="no root: held sockets are handed to root")
HOLD = Path(ciliate_node.__file__).parent.parent / "hold"
NAMES = ["udp:127.0.0.1:15353", "tcp:127.0.0.1:15353", "udp:[::1]:15353", "tcp:[::1]:15353"]

SERVER = """
import sys
from pathlib import Path
from ciliate.held import held_sockets
held = held_sockets(Path(sys.argv[1]))["udp:127.0.0.1:15353"]
held.setblocking(True)
print("up", flush=True)
while True:
    data, who = held.recvfrom(100)
    held.sendto(data[::-1], who)
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled as its Makefile does, elsewhere."""
    if shutil.which("make") is None:
        pytest.skip("no make")
    out = tmp_path_factory.mktemp("hold") / "ciliate-hold"
    subprocess.run(["make", "-s", "-C", str(HOLD), f"OUT={out}"], check=True)
    return out


@pytest.fixture
def control(program: Path, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "hold.sock"
    with subprocess.Popen([program, path, *NAMES], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield path
        process.kill()


def serve(control: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(control)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_sockets_are_handed_out_by_name_again_and_again(control: Path) -> None:
    for _ in range(3):
        held = held_sockets(control)
        assert list(held) == NAMES
        assert held["tcp:[::1]:15353"].getsockname()[:2] == ("::1", 15353)
        assert held["udp:127.0.0.1:15353"].type == socket.SOCK_DGRAM
        for one in held.values():
            one.close()


def test_queries_wait_while_the_server_is_killed_and_started_anew(control: Path) -> None:
    first = serve(control)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.connect(("127.0.0.1", 15353))
        client.send(b"abc")
        assert client.recv(100) == b"cba"
        end(first)
        for number in range(50):
            client.send(b"query-%d" % number)  # an error here would say that the port is unreachable
        second = serve(control)
        assert [client.recv(100)[::-1] for _ in range(50)] == [b"query-%d" % number for number in range(50)]
        end(second)


async def test_connections_are_accepted_while_nobody_serves(control: Path) -> None:
    reader, writer = await asyncio.open_connection("::1", 15353)
    writer.write(b"hello")
    held = held_sockets(control)

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readexactly(5)).upper())
        writer.close()

    server = await asyncio.start_server(greet, sock=held.pop("tcp:[::1]:15353"))
    async with asyncio.timeout(10):
        assert await reader.readexactly(5) == b"HELLO"
    writer.close()
    server.close()
    for one in held.values():
        one.close()
    await reached(lambda: not server.is_serving())


def test_nobody_but_root_is_given_a_socket(program: Path) -> None:
    asks = "import sys,socket as s;c=s.socket(s.AF_UNIX,s.SOCK_SEQPACKET);c.connect(sys.argv[1]);print(c.recv(9))"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "hold.sock")
        Path(folder).chmod(0o755)
        with subprocess.Popen([program, place, "udp:127.0.0.1:15355"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            place.chmod(0o666)
            command = ["/usr/bin/python3", "-c", asks, str(place)]
            said = subprocess.run(command, user=65534, capture_output=True, check=True, cwd="/")
            process.kill()
    assert said.stdout == b"b''\n"


@pytest.mark.parametrize(
    ("names", "status", "message"),
    [
        ([], 2, "usage"),
        (["sctp:127.0.0.1:53"], 2, "must be tcp:ADDRESS:PORT"),
        (["udp:localhost:53"], 2, "is no numeric address and port"),
        (["udp:"], 2, "has no address"),
        (["tcp:192.0.2.1:53"], 1, "bind: "),
    ],
)
def test_what_it_cant_hold_is_named(program: Path, tmp_path: Path, names: list[str], status: int, message: str) -> None:
    done = subprocess.run([program, tmp_path / "c.sock", *names], capture_output=True, check=False, timeout=10)
    assert done.returncode == status
    assert message in done.stderr.decode()


def test_a_second_one_at_the_same_place_is_refused_and_a_dead_ones_place_is_taken(program: Path, control: Path) -> None:
    again = subprocess.run([program, control, "udp:127.0.0.1:15354"], capture_output=True, check=False, timeout=10)
    assert (again.returncode, b"another process holds it" in again.stderr) == (2, True)
    held = held_sockets(control)
    assert list(held) == NAMES
    for one in held.values():
        one.close()
    began = time.monotonic()
    place = control.with_name("dead.sock")
    for _ in range(2):
        with subprocess.Popen([program, place, "udp:127.0.0.1:15354"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.kill()
    assert time.monotonic() - began < 10
