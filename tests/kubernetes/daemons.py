"""Programs that run beside the tests: started with a log, awaited, stopped, and ended for certain."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
LIMIT = 60.0


def wait_for(what: str, condition: Callable[[], T], limit: float = LIMIT, every: float = 0.05) -> T:
    """The first true value of a condition. AssertionError says what did not come."""
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {limit:g} s; last: {value!r}"
        time.sleep(every)


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Daemon:
    """One program. It may be stopped and started again; its log goes on.

    It ends with the thread that has started it, so that nothing outlives a run that was killed.
    """

    def __init__(
        self, name: str, command: list[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = command
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running program. AssertionError if it doesn't run."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    def start(self) -> None:
        """Start it, in a session of its own."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def await_ready(self, condition: Callable[[], object], limit: float = LIMIT) -> None:
        """Wait until a condition holds. AssertionError, with the log's end, if it does not in time."""

        def look() -> object:
            assert self.runs(), f"{self.name} ended with {self._status()}:\n{self.tail()}"
            return condition()

        try:
            wait_for(f"{self.name} is ready", look, limit)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None

    def runs(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM, grace: float = 5.0) -> None:
        """End it by a signal, and for certain once `grace` is over. Nothing if it doesn't run."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None

    def tail(self, lines: int = 30) -> str:
        """The log's last lines."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _status(self) -> object:
        return self._process.poll() if self._process is not None else "nothing"
