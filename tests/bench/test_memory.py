"""What an idle node's processes hold, as proportional set size: shared pages are counted once between their users.

Measured for what a machine runs (`ciliate node`): the whole, and what each plugin and each process more adds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.bench import harness
from tests.bench.idle import IdleNode

Placement = Mapping[str, Sequence[str]]
WHOLE = ("ipam", "cni", "policy", "hubble")
STEPS: tuple[tuple[str, Sequence[str], Placement], ...] = (
    ("nothing but the core", (), {"agent": ()}),
    ("plugin ipam", WHOLE[:1], {}),
    ("plugin cni", WHOLE[:2], {}),
    ("plugin policy", WHOLE[:3], {}),
    ("process hubble", WHOLE, {}),
    ("an empty process", (*WHOLE, "spare"), {}),
    ("a third party's process", (*WHOLE, "spare", "stranger"), {}),
)
"""What each step adds to the one before, its plugins, and where configuration places them."""


def test_memory_of_an_idle_node_and_what_adds_to_it() -> None:
    report = harness.new_report("memory")
    before = 0.0
    for number, (what, plugins, processes) in enumerate(STEPS):
        with IdleNode(130 + number, plugins, processes) as node:
            sizes = node.sizes()
        total = sum(sizes.values())
        shown = ", ".join(f"{name} {size:.1f}" for name, size in sizes.items())
        report.notes.append(f"{what}: +{total - before:.1f} MB, {total:.1f} MB in all ({shown})")
        if plugins == WHOLE:
            report.gates.append(harness.gate("memory MB", harness.Figure(total, total, total)))
        before = total
    report.check()
