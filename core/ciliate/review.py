"""Findings about an object before it is stored."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Severity(enum.Enum):
    """INVALID refuses the object; UNSUPPORTED warns."""

    INVALID = "invalid"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True)
class Finding:
    """One thing to say of an object: where in it (as spec.egress[0].toPorts), and a sentence."""

    path: str
    message: str
    severity: Severity = Severity.INVALID
