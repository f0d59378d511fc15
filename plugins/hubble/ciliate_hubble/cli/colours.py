"""Colours of compact and dict: who, which port, which identity, and how it ended."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from ciliate_hubble.cli.flags import UsageError
from ciliate_hubble.cli.names import End

_RED, _GREEN, _YELLOW, _MAGENTA, _CYAN = 31, 32, 33, 35, 36
_VERDICTS = {
    **dict.fromkeys(("FORWARDED", "REDIRECTED", "ALLOWED"), _GREEN),
    **dict.fromkeys(("DROPPED", "ERROR", "DENIED"), _RED),
    **dict.fromkeys(("AUDIT", "AUDITED", "TRACED", "TRANSLATED"), _YELLOW),
}


@dataclass(frozen=True)
class Colours:
    """Paints words, or leaves them."""

    on: bool

    def end(self, end: End) -> str:
        """A host with its port."""
        if not end.port:
            return self._paint(_CYAN, end.host)
        return self._paint(_CYAN, f"{end.host}:{self._paint(_YELLOW, end.port)}")

    def identity(self, text: str) -> str:
        """An identity."""
        return self._paint(_MAGENTA, text)

    def verdict(self, text: str, more: str = "") -> str:
        """A verdict, with what stands behind it."""
        return self._paint(_VERDICTS[text], text + more) if text in _VERDICTS else text + more

    def reason(self, text: str) -> str:
        """Why something was dropped."""
        return self._paint(_RED, text)

    def _paint(self, colour: int, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.on and text else text


def colours(when: str) -> Colours:
    """For `auto` (a terminal that has colours), `always` or `never`. Raises UsageError."""
    match when.lower():
        case "always":
            return Colours(True)
        case "never":
            return Colours(False)
        case "auto":
            plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
            return Colours(sys.stdout.isatty() and not plain)
    raise UsageError(f"--color: {when!r} is none of auto, always, never")
