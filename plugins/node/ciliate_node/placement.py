"""What a plan is: processes, in the order of their start, and the plugins of each."""

from __future__ import annotations

import msgspec


class Budget(msgspec.Struct, frozen=True):
    """What a process of its own may use."""

    memory: int  # bytes
    cpu: float  # of one CPU


class Placement(msgspec.Struct):
    """One process of the plan."""

    process: str
    plugins: list[str]
    essential: bool = False  # started anew for ever
    budget: Budget | None = None  # of a third party's process


class Plan(msgspec.Struct):
    """A node's processes in the order of their start."""

    node: str
    run_dir: str
    placements: list[Placement]
    ours: list[str]  # plugins of ours, which the fork server may import

    def flags(self) -> list[str]:
        """The settings that make each process host what the plan says."""
        placed = {placement.process: placement.plugins for placement in self.placements}
        return [f"processes={msgspec.json.encode(placed).decode()}"]
