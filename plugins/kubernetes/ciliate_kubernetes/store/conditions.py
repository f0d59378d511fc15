"""What the store can't do at present: said in the log when it begins and when it ends, and shown while it lasts."""

from __future__ import annotations

import time

import structlog

log = structlog.get_logger("store")

_REMIND_SECONDS = 60.0


class Conditions:
    """One sentence for each resource that can't be had."""

    def __init__(self) -> None:
        self._failing: dict[str, tuple[str, float]] = {}  # resource to what is wrong and when that was said

    def failed(self, resource: str, reason: str) -> None:
        """A resource can't be listed or watched now."""
        known = self._failing.get(resource)
        now = time.monotonic()
        if known is None or known[0] != reason or now - known[1] > _REMIND_SECONDS:
            self._failing[resource] = (reason, now)
            log.warning("objects can't be had; trying again", resource=resource, reason=reason)

    def worked(self, resource: str) -> None:
        """It can be had again."""
        if self._failing.pop(resource, None) is not None:
            log.info("objects can be had again", resource=resource)

    def sentences(self) -> tuple[str, ...]:
        """All that is wrong, each thing once."""
        return tuple(dict.fromkeys(reason for reason, _ in self._failing.values()))
