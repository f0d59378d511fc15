"""A stream of datagrams between two pods, each answered, with times: it sees a change of policy to the millisecond.

Both ends run in the pods' network namespaces, as processes of the node's.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.kubernetes.daemons import wait_for
from tests.kubernetes.node import Node

INTERVAL = 0.001
PORT = 4000
_ECHO = """
import socket
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
    server.bind(("::", {port}))
    print("ready", flush=True)
    while True:
        data, peer = server.recvfrom(64)
        server.sendto(data, peer)
"""
_SENDER = """
import select, signal, socket, sys, time
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
address = "{address}"
family = socket.AF_INET6 if ":" in address else socket.AF_INET
sent, answers = 0, {{}}
with socket.socket(family, socket.SOCK_DGRAM) as client:
    client.connect((address, {port}))
    client.setblocking(False)
    print("ready", flush=True)
    due = time.monotonic()
    while not ended:
        try:
            client.send(str(sent).encode())
        except OSError:
            pass
        out = time.time()
        sent += 1
        due += {interval}
        while (left := due - time.monotonic()) > 0:
            if select.select([client], [], [], left)[0]:
                try:
                    number = int(client.recv(64))
                except OSError:
                    continue
                answers[number] = time.time()
        print(f"{{out:.6f}}", file=sys.stderr)
    time.sleep(0.2)
    while select.select([client], [], [], 0)[0]:
        try:
            answers[int(client.recv(64))] = time.time()
        except OSError:
            break
for number, at in answers.items():
    print(number, f"{{at:.6f}}")
"""


class Stream:
    """Datagrams from one pod to another, one a millisecond, until `stop`."""

    def __init__(self, node: Node, source: str, destination: str, address: str) -> None:
        """source, destination: addresses (IPv4) by which the pods' namespaces are found; address: where to send."""
        self._server = _start(node, destination, _ECHO.format(port=PORT))
        self._client = _start(node, source, _SENDER.format(address=address, port=PORT, interval=INTERVAL))

    def stop(self) -> list[tuple[float, float | None]]:
        """When each datagram was sent, and when its answer came (None: it did not)."""
        self._client.terminate()
        printed, told = self._client.communicate(timeout=10)
        self._server.kill()
        self._server.communicate(timeout=10)
        answers = {int(number): float(at) for number, at in (line.split() for line in printed.splitlines())}
        return [(float(line), answers.get(number)) for number, line in enumerate(told.splitlines())]


def _start(node: Node, address: str, program: str) -> subprocess.Popen[str]:
    command = [*node.enter, "nsenter", f"--net={namespace_of(node, address)}", "/usr/bin/python3", "-c", program]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "ready\n", f"{line}{process.communicate()[1]}"
    return process


def namespace_of(node: Node, address: str) -> Path:
    """The file of the pod's network namespace that has an address."""

    def find() -> Path | None:
        for name in node.run("ls", "/run/netns").split():
            path = Path("/run/netns", name)
            shown = node.try_run("nsenter", f"--net={path}", "ip", "-j", "address").stdout
            links: list[dict[str, Any]] = json.loads(shown or "[]")
            if any(a["local"] == address for link in links for a in link.get("addr_info", ())):
                return path
        return None

    found = wait_for(f"a namespace with {address}", find, limit=5)
    assert found is not None
    return found
