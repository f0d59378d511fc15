"""What an idle node's processes hold, as proportional set size: shared pages are counted once between their users."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import harness

if TYPE_CHECKING:
    from tests.bench.lab import Lab

NOT_OF_A_NODE = ("supervisor", "kubelet", "operator", "relay")
"""Processes that stand in for a machine's own, or are a cluster's: not on each node, or not Ciliate's."""


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [pid, *(one for child in children for one in family(child))]


def pss(pid: int) -> int:
    """Proportional set size of a process, in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{pid}/smaps_rollup has no line Pss")


def test_memory_of_an_idle_node(lab: Lab) -> None:
    """The others of a lab are reported too; the gate is on what would be on a node."""
    report = harness.new_report("memory")
    total = 0.0
    for name, pid in lab.processes().items():
        members = [pid] if name == "supervisor" else family(pid)  # that one is everybody's parent
        own = sum(map(pss, members)) / 1e6
        counted = name not in NOT_OF_A_NODE
        total += own if counted else 0
        report.notes.append(
            f"{name}: {own:.1f} MB in {len(members)} process(es)" + ("" if counted else ", not counted: of the lab")
        )
    report.gates.append(harness.gate("memory MB", harness.Figure(total, total, total)))
    report.check()
