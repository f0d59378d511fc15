"""How long and how often is measured, and the budgets: the one place where either is a number.

CILIATE_BENCH=quick (the default; what `make test` runs) takes a few short pairs: it finds what is broken or twice too
slow, not what is two per cent slower. So its gate is the median, and each budget gives way by QUICK_SLACK.
CILIATE_BENCH=full takes enough pairs for DESIGN section 11: the gate is the unfavourable end of the 95 % interval, and
nothing gives way.
"""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass

QUICK_SLACK = 0.10
"""In quick mode a floor of 0.90 is 0.81. Added time, a small difference of two noisy figures, has ADDED_SLACK."""

ADDED_SLACK = 0.60


class Sense(enum.Enum):
    """On which side of its limit a figure must be."""

    AT_LEAST = ">="
    AT_MOST = "<="


@dataclass(frozen=True)
class Budget:
    """One line of DESIGN section 11. `slack` is the share by which quick mode gives way."""

    name: str
    limit: float
    sense: Sense
    slack: float = QUICK_SLACK

    def quick_limit(self) -> float:
        """The limit of quick mode."""
        share = 1 - self.slack if self.sense is Sense.AT_LEAST else 1 + self.slack
        return self.limit * share


@dataclass(frozen=True)
class Plan:
    """How much is measured. Seconds are of one measurement; `warm_up` seconds a link are thrown away first."""

    full: bool
    pairs: int
    seconds: float
    warm_up: float
    spread_peers: int  # with spread_ports: 1,000 pairs of peer and port in both modes
    spread_ports: int
    cni_rounds: int  # of CNI_CHUNK ADDs and DELs, alternating between the plugins
    cni_at_once: int
    endpoints: int  # of the SIGKILL test


CNI_CHUNK = 10
LOAD_CPU = 0
"""Both ends of a measurement run here; everything else (agent, consumer of events, background flows) on OTHER_CPU."""
OTHER_CPU = 1
SEED = 20261124
"""Of the order of the variants and of the bootstrap: two runs differ only by the machine."""
RESAMPLES = 10_000

BUDGETS = {
    budget.name: budget
    for budget in (
        Budget("rr of bare", 0.90, Sense.AT_LEAST),
        Budget("rr of ptp", 1.10, Sense.AT_LEAST),
        Budget("rr added of forward", 1.5, Sense.AT_MOST, ADDED_SLACK),
        Budget("crr of bare", 0.87, Sense.AT_LEAST),
        Budget("crr added of forward", 2.0, Sense.AT_MOST, ADDED_SLACK),
        Budget("crr spread of bare", 0.85, Sense.AT_LEAST),
        Budget("cni add p50 of ptp", 0.25, Sense.AT_MOST),
        Budget("cni burst p99 of ptp", 0.25, Sense.AT_MOST),
        Budget("sigkill lost", 0, Sense.AT_MOST),
        Budget("sigkill wrong", 0, Sense.AT_MOST),
        Budget("sigkill enforced s", 3.0, Sense.AT_MOST, 0),
        Budget("memory MB", 255, Sense.AT_MOST, 0),
        Budget("bare of bare, low", 0.97, Sense.AT_LEAST, 0.05),
        Budget("bare of bare, high", 1.03, Sense.AT_MOST, 0.05),
    )
}

BACKGROUND_POLICY_ENTRIES = 100_000
BACKGROUND_IPCACHE_ENTRIES = 50_000
BACKGROUND_FLOWS = 1_000
BACKGROUND_CHANGES = 20
"""ipcache changes a second."""

_QUICK = Plan(False, 6, 0.25, 0.1, 20, 50, 3, 100, 50)
_FULL = Plan(True, 24, 1.5, 0.3, 250, 4, 20, 100, 250)


def plan() -> Plan:
    """The plan that CILIATE_BENCH names."""
    name = os.environ.get("CILIATE_BENCH", "quick")
    if name not in ("quick", "full"):
        raise ValueError(f"CILIATE_BENCH={name}: must be quick or full")
    return _FULL if name == "full" else _QUICK
