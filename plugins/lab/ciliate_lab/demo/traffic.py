"""Steady traffic from inside a pod, every packet and connection counted; runs by itself, on the machine's Python.

    traffic.py SECONDS allowed ADDRESS... denied ADDRESS...

To each allowed address: numbered UDP packets to port 9000, requests over one kept HTTP connection and over new ones to
port 8080. To each denied address: attempts to connect to port 5432. Prints one JSON object of counts.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

PATIENCE = 2.0
"""Seconds to wait for an answer: longer than any retransmission on one machine takes."""
UNANSWERED_AFTER = 0.1
"""Seconds after which a denied attempt is given up; an allowed one is answered in a millisecond."""


class Counts:
    """What happened, by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.values: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """One more."""
        with self._lock:
            self.values[name] += 1


def packets(address: str, end: float, counts: Counts) -> None:
    """Numbered packets every 2 ms; each that comes back is ticked off."""
    missing: set[bytes] = set()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.connect((address, 9000))
        sender.settimeout(0.002)
        number = 0
        while time.monotonic() < end or (missing and time.monotonic() < end + PATIENCE):
            if time.monotonic() < end:
                number += 1
                missing.add(number.to_bytes(4, "big"))
                sender.send(number.to_bytes(4, "big"))
                counts.add("packets_sent")
            try:
                missing.discard(sender.recv(16))
                time.sleep(0.002)
            except TimeoutError:
                continue
    for _ in missing:
        counts.add("packets_lost")


def kept_connection(address: str, end: float, counts: Counts) -> None:
    """Requests every 5 ms over one connection that was made before anything was broken."""
    connection = http.client.HTTPConnection(address, 8080, timeout=PATIENCE)
    while time.monotonic() < end:
        counts.add("requests_sent")
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except OSError:
            counts.add("requests_lost")
            connection.close()
        time.sleep(0.005)
    connection.close()


def new_connections(address: str, end: float, counts: Counts) -> None:
    """A request over a new connection every 10 ms."""
    while time.monotonic() < end:
        connection = http.client.HTTPConnection(address, 8080, timeout=PATIENCE)
        counts.add("connections_sent")
        try:
            connection.request("GET", "/", headers={"Connection": "close"})
            connection.getresponse().read()
        except OSError:
            counts.add("connections_lost")
        connection.close()
        time.sleep(0.01)


def denied_connections(address: str, end: float, counts: Counts) -> None:
    """Attempts that must not be answered."""
    while time.monotonic() < end:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as attempt:
            attempt.settimeout(UNANSWERED_AFTER)
            counts.add("denied_sent")
            try:
                attempt.connect((address, 5432))
                counts.add("denied_answered")
            except OSError:
                continue


def main() -> None:
    """Run all kinds at once."""
    seconds, *rest = sys.argv[1:]
    middle = rest.index("denied")
    counts, end = Counts(), time.monotonic() + float(seconds)
    work: list[tuple[Callable[[str, float, Counts], None], str]] = []
    for address in rest[1:middle]:
        work += [(packets, address), (kept_connection, address), (new_connections, address)]
    work += [(denied_connections, address) for address in rest[middle + 1 :]]
    threads = [threading.Thread(target=kind, args=(address, end, counts)) for kind, address in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(counts.values))


if __name__ == "__main__":
    main()
