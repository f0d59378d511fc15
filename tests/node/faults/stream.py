"""A TCP connection that is opened once and must live through everything: a message every few milliseconds, echoed."""

from __future__ import annotations

import socket
import struct
import threading
import time

from ciliate_lab import namespaces

EVERY = 0.01
"""Seconds between messages."""
PATIENCE = 20.0
"""Seconds without an answer after which the connection counts as broken."""
_MESSAGE = struct.Struct("!Q")


class Stream(threading.Thread):
    """One connection from a pod to an echo server. After `stop`: `messages`, `longest_pause` (s) and `broken`."""

    def __init__(self, netns: str, address: str, port: int) -> None:
        super().__init__(name=f"stream to {address}", daemon=True)
        self.address = address
        self.messages = 0
        self.longest_pause = 0.0
        self.broken = ""
        self._ending = threading.Event()

        def connect() -> socket.socket:
            return socket.create_connection((address, port), timeout=PATIENCE)

        self._socket = namespaces.inside(netns, connect)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run(self) -> None:
        """Send and receive until told to stop."""
        try:
            while not self._ending.wait(EVERY):
                self._exchange()
        except OSError as error:
            self.broken = f"the connection to {self.address} broke after {self.messages} messages: {error}"
        finally:
            self._socket.close()

    def _exchange(self) -> None:
        began = time.monotonic()
        sent = _MESSAGE.pack(self.messages)
        self._socket.sendall(sent)
        got = b""
        while len(got) < len(sent):
            part = self._socket.recv(len(sent) - len(got))
            if not part:
                raise ConnectionError("the server hung up")
            got += part
        if got != sent:
            raise ConnectionError(f"answered {got!r} to {sent!r}")
        self.messages += 1
        self.longest_pause = max(self.longest_pause, time.monotonic() - began)

    def stop(self) -> None:
        """End it; may be called twice."""
        self._ending.set()
        if self.ident is not None:
            self.join(PATIENCE + 5)
        else:
            self._socket.close()
