"""Python's search for cyclic garbage, kept short: a full one over all that an agent holds would stop it for 0.2 s.

While modules are imported nothing is garbage, and to search takes a tenth of that time. What has outlived a full search
is not looked at again, but once in RETHINK: a cycle that dies late waits for that. In a process forked from one
with objects of its own such a look would copy every page that both share: none there.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

RETHINK = 3600.0
"""Seconds between two searches through everything."""
_OLDEST = 2

_due = math.inf


@contextmanager
def importing() -> Iterator[None]:
    """No search while modules are imported."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def spare_the_old() -> None:
    """From now on, for this process: all that there is, that is what was imported, and later what proves to last."""
    global _due
    if _mind not in gc.callbacks:
        _due = math.inf if gc.get_freeze_count() else time.monotonic() + RETHINK
        gc.callbacks.append(_mind)
        gc.freeze()


def _mind(phase: str, info: dict[str, Any]) -> None:
    global _due
    if info["generation"] != _OLDEST:
        return
    if phase == "stop":
        gc.freeze()
    elif time.monotonic() >= _due:
        _due = time.monotonic() + RETHINK
        gc.unfreeze()
