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
import select, socket, sys
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
    server.bind(("::", {port}))
    print("ready", flush=True)
    while True:
        ready = select.select([server, sys.stdin], [], [])[0]
        if sys.stdin in ready:
            break
        data, peer = server.recvfrom(64)
        server.sendto(data, peer)
"""
_SENDER = """
import select, socket, sys, time
address = "{address}"
family = socket.AF_INET6 if ":" in address else socket.AF_INET
sent, answers = [], {{}}

def take(client):
    try:
        answers[int(client.recv(64))] = time.time()
    except OSError:
        pass

with socket.socket(family, socket.SOCK_DGRAM) as client:
    client.connect((address, {port}))
    client.setblocking(False)
    print("ready", flush=True)
    due, ready = time.monotonic(), []
    while sys.stdin not in ready:
        sent.append(time.time())
        try:
            client.send(str(len(sent) - 1).encode())
        except OSError:
            pass
        due += {interval}
        while (left := due - time.monotonic()) > 0:
            ready = select.select([client, sys.stdin], [], [], left)[0]
            if client in ready:
                take(client)
            if sys.stdin in ready:
                break
    while select.select([client], [], [], 0.2)[0]:
        take(client)
for number, at in enumerate(sent):
    print(f"{{at:.6f}} {{answers.get(number, 0):.6f}}")
"""
"""Both end with their input: a signal would reach nsenter, and not them."""


class Stream:
    """Datagrams from one pod to another, one a millisecond, until `stop`."""

    def __init__(self, node: Node, source: str, destination: str, address: str) -> None:
        """source, destination: addresses (IPv4) by which the pods' namespaces are found; address: where to send."""
        self._server = _start(node, destination, _ECHO.format(port=PORT))
        self._client = _start(node, source, _SENDER.format(address=address, port=PORT, interval=INTERVAL))

    def stop(self) -> list[tuple[float, float | None]]:
        """When each datagram was sent, and when its answer came (None: it did not)."""
        printed, told = self._client.communicate(timeout=20)
        self._server.communicate(timeout=10)
        assert self._client.returncode == 0, told
        times = ((float(out), float(answered)) for out, answered in (line.split() for line in printed.splitlines()))
        return [(out, answered or None) for out, answered in times]


def _start(node: Node, address: str, program: str) -> subprocess.Popen[str]:
    command = [*node.enter, "nsenter", f"--net={namespace_of(node, address)}", "/usr/bin/python3", "-c", program]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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
