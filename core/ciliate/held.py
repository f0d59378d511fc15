"""Sockets that `ciliate-hold` keeps open over a process's restarts."""

from __future__ import annotations

import socket
from pathlib import Path

_MOST = 64
_TEXT = 4096


def held_sockets(control: Path, timeout: float = 5.0) -> dict[str, socket.socket]:
    """The sockets that are held at `control`, by name (as udp:127.0.0.1:53); all non-blocking. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(timeout)
        client.connect(str(control))
        text, descriptors, _, _ = socket.recv_fds(client, _TEXT, _MOST)
    if not descriptors:
        raise PermissionError(f"{control}: handed out nothing; only root is given its sockets")
    held = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for one in held:
        one.setblocking(False)
    return dict(zip(text.decode().split(), held, strict=True))
