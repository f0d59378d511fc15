"""The fork server: imports what the node's processes share, once, and forks them.

A process is forked twice, so that it becomes the supervisor's child and not the server's. The server has one thread
and no event loop; objects that it has made are frozen, so that no collection in a child touches and copies their pages.
"""

from __future__ import annotations

import gc
import os
import socket
import struct
import sys
from pathlib import Path
from typing import NoReturn

import msgspec

from ciliate_node.starting import Start, die_with_parent, prepare

_MESSAGE = 1 << 16
_PID = struct.Struct("i")


def preload(plugins: list[str]) -> None:
    """Import the host and the plugins of ours. What can't be imported is left to the process that wants it."""
    import ciliate.host
    import ciliate.logs
    import ciliate.routes  # noqa: F401
    from ciliate.loading import GROUP, load_driver

    for name in plugins:
        try:
            load_driver(GROUP, name)
        except Exception as error:
            print(f"fork server: plugin {name} is not preloaded: {error}", file=sys.stderr)
    gc.collect()
    gc.freeze()


def serve(connection: socket.socket) -> None:
    """Fork what is asked for until the supervisor is gone. Each answer is a pid, or a negative errno."""
    while request := connection.recv(_MESSAGE):
        start = msgspec.json.decode(request, type=Start)
        try:
            answer = _fork(start, connection)
        except OSError as error:
            answer = -(error.errno or 1)
        connection.send(str(answer).encode())


def _fork(start: Start, connection: socket.socket) -> int:
    receive, send = os.pipe()
    between = os.fork()
    if not between:
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or 1)
        if pid:
            os.write(send, _PID.pack(pid))
            os._exit(0)
        os.close(receive)
        os.close(send)
        connection.close()
        _run(start)
    os.close(send)
    with open(receive, "rb") as pipe:  # noqa: PTH123
        raw = pipe.read()
    os.waitpid(between, 0)
    (pid,) = _PID.unpack(raw)
    return int(pid)


def _run(start: Start) -> NoReturn:
    status = 70
    try:
        prepare(start)
        sys.argv = ["ciliate", "run", start.process]
        from ciliate.config import ConfigError, load_settings
        from ciliate.host import StartError, run_host

        gc.enable()
        try:
            settings = load_settings(Path(start.config) if start.config else None, start.flags)
            run_host(settings, start.process, start.process)
            status = 0
        except (ConfigError, StartError) as error:
            print(f"ciliate run {start.process}: {error}", file=sys.stderr)
            status = 1
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Entry point: the connection's descriptor, then names of plugins."""
    die_with_parent()
    gc.disable()
    connection = socket.socket(fileno=int(sys.argv[1]))
    preload(sys.argv[2:])
    serve(connection)


if __name__ == "__main__":
    main()
