"""Flows that can be told apart: each is one datagram to a port of its own."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from itertools import count

from tests.node.labs import Lab, Pod

_ports = count(20_000)


@dataclass(frozen=True)
class Pair:
    """Two pods of one node."""

    client: Pod
    server: Pod

    @classmethod
    def run(cls, lab: Lab, node: str) -> Pair:
        """Start them."""
        client, server = (lab.run(f"{role}-{node}", "sleep", "inf", node=node) for role in ("client", "server"))
        return cls(client, server)

    def send(self, number: int = 1) -> set[int]:
        """Make flows; the ports that tell them."""
        ports = {next(_ports) for _ in range(number)}

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                for port in ports:
                    client.sendto(b"x", (self.server.ipv4, port))

        self.client.inside(send)
        return ports
