"""A node's API over standard input and output: what a client elsewhere executes on the node to reach its sockets.

`python -m ciliate.api.bridge SOCKET` carries frames to the process behind the socket; with `--any` each call goes to
whichever of the node's processes serves its route, SOCKET's first. It ends with its input.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from ciliate.api.client import Client, NodeClient
from ciliate.api.routes import ApiError
from ciliate.api.wire import LENGTH, Answer, Call, frame


def serve(connect: Callable[[], Client], source: BinaryIO, sink: BinaryIO) -> None:
    """Carry each call to a client and its answers back, until the source ends."""
    client: Client | None = None
    while (call := _read(source)) is not None:
        try:
            client = client or connect()
            for answer in client.answers(call):
                _write(sink, answer)
        except ApiError as error:
            client = None
            _write(sink, Answer(status=error.status, body=str(error)))


def _read(source: BinaryIO) -> Call | None:
    header = source.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    return msgspec.msgpack.decode(source.read(LENGTH.unpack(header)[0]), type=Call)


def _write(sink: BinaryIO, answer: Answer) -> None:
    sink.write(frame(answer))
    sink.flush()


def _end_with_input() -> None:
    """A caller may leave while a stream is quiet, when nothing is read from it nor written to it."""
    poll = select.poll()
    poll.register(sys.stdin.fileno(), 0)
    poll.poll()
    os._exit(0)


def main() -> None:
    """Entry point of the process."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    words = [word for word in sys.argv[1:] if word != "--any"]
    made, path = (NodeClient if "--any" in sys.argv[1:] else Client), Path(words[0])
    serve(lambda: made(path, None), sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
