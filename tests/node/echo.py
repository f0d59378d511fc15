"""A server for pods: sends back what it gets, on every port that its arguments name (8080/tcp), in both families."""

from __future__ import annotations

import selectors
import socket
import sys


def main() -> None:
    """Serve until killed."""
    selector = selectors.DefaultSelector()
    for argument in sys.argv[1:]:
        number, _, protocol = argument.partition("/")
        stream = protocol != "udp"
        server = socket.socket(socket.AF_INET6, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("::", int(number)))
        if stream:
            server.listen(128)
        selector.register(server, selectors.EVENT_READ, "listen" if stream else "datagram")
    while True:
        for key, _ in selector.select():
            _serve(selector, key)


def _serve(selector: selectors.DefaultSelector, key: selectors.SelectorKey) -> None:
    ready = key.fileobj
    assert isinstance(ready, socket.socket)
    if key.data == "listen":
        connection, _ = ready.accept()
        selector.register(connection, selectors.EVENT_READ, "connection")
    elif key.data == "datagram":
        data, sender = ready.recvfrom(65536)
        ready.sendto(data, sender)
    else:
        try:
            data = ready.recv(65536)
            ready.sendall(data)
        except OSError:
            data = b""
        if not data:
            selector.unregister(ready)
            ready.close()


if __name__ == "__main__":
    main()
