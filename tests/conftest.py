"""One run at a time of the tests that measure, or count what is left on the machine: another checkout's waits."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path
from typing import TextIO

import pytest

LOCK = Path("/run/lock/ciliate-tests.lock")
ALONE = ("node", "kubernetes", "bench")
_held: list[TextIO] = []  # until the process ends


def pytest_collection_finish(session: pytest.Session) -> None:
    """Hold the machine if such a test is among those that will run; before any test's time limit begins."""
    tests = Path(__file__).parent
    rooms = {item.path.relative_to(tests).parts[0] for item in session.items if item.path.is_relative_to(tests)}
    if os.geteuid() == 0 and not session.config.option.collectonly and rooms & set(ALONE):
        _hold_machine()


def _hold_machine() -> None:
    lock = LOCK.open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        print(f"\ntests: waiting for another run ({lock.read().strip()}; {LOCK})", file=sys.stderr, flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    lock.truncate(0)
    lock.write(f"process {os.getpid()} in {Path.cwd()}\n")
    lock.flush()
    _held.append(lock)
