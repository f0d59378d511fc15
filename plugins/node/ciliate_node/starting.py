"""How a process comes to be: forked from the server that has imported what all share, or executed if that fails."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from ciliate_node import cgroups

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36
_MESSAGE = 1 << 16


class Start(msgspec.Struct):
    """One process to be started."""

    process: str
    config: str  # path; empty: none
    flags: list[str]
    cgroups: list[str]
    log: str = ""  # file that its output is added to; empty: the supervisor's output


class StartError(Exception):
    """A process could not be started; the message says why."""


def become_subreaper() -> None:
    """Become the parent of processes whose parents end: those that the fork server makes."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """End when the parent ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def prepare(start: Start) -> None:
    """In the new process: its session, signals, groups, output and name."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if start.log:
        Path(start.log).parent.mkdir(parents=True, exist_ok=True)
        log = os.open(start.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
    with suppress(OSError):
        cgroups.enter(start.cgroups)
    _LIBC.prctl(_PR_SET_NAME, f"ciliate-{start.process}".encode()[:15], 0, 0, 0)


def execute(start: Start) -> int:
    """Start a process the plain way. Its pid."""
    program = str(Path(sys.executable).with_name("ciliate"))
    command = [program, "run", start.process, *(["--config", start.config] if start.config else [])]
    for flag in start.flags:
        command += ["--set", flag]
    pid = os.fork()
    if not pid:
        _exec(start, command)
    return pid


def _exec(start: Start, command: list[str]) -> NoReturn:
    try:
        prepare(start)
        os.execv(command[0], command)
    except BaseException as error:  # nothing may return into the parent's loop
        os.write(2, f"starting {start.process}: {error}\n".encode())
    finally:
        os._exit(70)


class ForkServer:
    """The server's client. It ends with the supervisor; what it started stays."""

    def __init__(self, plugins: list[str]) -> None:
        self._plugins = plugins
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    @property
    def pid(self) -> int:
        """The server's process, 0 if it doesn't run."""
        return self._process.pid if self._process is not None else 0

    def start(self, start: Start) -> int:
        """Fork a process. Its pid. Raises StartError."""
        try:
            if self._socket is None:
                self._launch()
            assert self._socket is not None
            self._socket.send(msgspec.json.encode(start))
            pid = int(self._socket.recv(_MESSAGE) or b"0")
        except (OSError, ValueError) as error:
            self.stop()
            raise StartError(f"the fork server doesn't answer: {error}") from error
        if pid <= 0:
            self.stop()
            raise StartError("the fork server ended" if pid == 0 else f"fork failed: {os.strerror(-pid)}")
        return pid

    def stop(self) -> None:
        """End the server."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._socket = self._process = None

    def _launch(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ciliate_node.forkserver", str(theirs.fileno()), *self._plugins],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # a fork takes no threads along
            )
        ours.settimeout(60.0)
        self._socket = ours
