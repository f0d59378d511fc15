"""One run at a time of the tests that measure, or count what is left on the machine: another checkout's waits."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest

LOCK = Path("/run/lock/ciliate-tests.lock")
ALONE = ("node", "kubernetes", "bench")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Hold the machine if such a test is among those that will run; before any test's time limit begins."""
    tests = Path(__file__).parent
    rooms = {item.path.relative_to(tests).parts[0] for item in session.items if item.path.is_relative_to(tests)}
    if os.geteuid() == 0 and not session.config.option.collectonly and rooms & set(ALONE):
        _hold_machine()


def _hold_machine() -> None:
    """Until the process ends: nobody closes the lock."""
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(
            f"\ntests: waiting for another run ({os.pread(lock, 200, 0).decode()}; {LOCK})", file=sys.stderr, flush=True
        )
        fcntl.flock(lock, fcntl.LOCK_EX)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} in {Path.cwd()}".encode(), 0)
