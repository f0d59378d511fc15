"""Python's search for cyclic garbage, kept short: a full one over all that an agent holds would stop it for 0.2 s.

What has outlived a full search is not looked at again, but once in RETHINK: a cycle that dies late waits for that.
"""

from __future__ import annotations

import gc
import time
from typing import Any

RETHINK = 3600.0
"""Seconds between two searches through everything."""
_OLDEST = 2

_rethought = 0.0


def spare_the_old() -> None:
    """From now on, for this process."""
    global _rethought
    if _mind not in gc.callbacks:
        _rethought = time.monotonic()
        gc.callbacks.append(_mind)


def _mind(phase: str, info: dict[str, Any]) -> None:
    global _rethought
    if info["generation"] != _OLDEST:
        return
    if phase == "stop":
        gc.freeze()
    elif time.monotonic() - _rethought > RETHINK:
        _rethought = time.monotonic()
        gc.unfreeze()
