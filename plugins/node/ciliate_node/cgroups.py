"""Control groups of a node's processes: version 2 where it has the controllers, version 1 for those that it lacks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ciliate_node.placement import Budget

_PERIOD = 100_000  # µs
_ROOTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


def unified() -> Path | None:
    """Where version 2 is mounted."""
    return next((root for root in _ROOTS if (root / "cgroup.controllers").exists()), None)


def groups(node: str, process: str, budget: Budget | None) -> tuple[list[Path], list[str]]:
    """Make a process's groups: (the groups to enter, what of the budget could not be set, with the reason)."""
    made: list[Path] = []
    failed: list[str] = []
    missing = {"memory", "cpu"} if budget is not None else set()
    if (root := unified()) is not None:
        group = root / "ciliate" / node / process
        try:
            group.mkdir(parents=True, exist_ok=True)
            made.append(group)
            missing -= _enable(root, group, missing)
        except OSError as error:
            failed.append(f"no control group: {error}")
    for controller in sorted(missing):
        old = Path("/sys/fs/cgroup") / controller
        if (old / "tasks").exists():
            group = old / "ciliate" / node / process
            group.mkdir(parents=True, exist_ok=True)
            made.append(group)
        else:
            failed.append(f"no {controller} budget: this machine's control groups have no {controller} controller")
    if budget is not None:
        for file, value in _values(made, budget):
            try:
                file.write_text(value)
            except OSError as error:
                failed.append(f"no budget in {file}: {error.strerror}")
    return made, failed


def enter(made: list[str]) -> None:
    """Move the calling process into groups."""
    for group in made:
        Path(group, "cgroup.procs").write_text(str(os.getpid()))


def remove(node: str) -> None:
    """Remove a node's empty groups."""
    roots = [*([unified()] if unified() else []), Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/cpu")]
    for root in roots:
        assert root is not None
        for folder, _, _ in os.walk(root / "ciliate" / node, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()


def _enable(root: Path, group: Path, wanted: set[str]) -> set[str]:
    """Turn controllers on from the root down to a group; those that are there."""
    present = wanted & set((root / "cgroup.controllers").read_text().split())
    for above in reversed(group.parents):
        if above == root or root in above.parents:
            for controller in present:
                (above / "cgroup.subtree_control").write_text(f"+{controller}")
    return present


def _values(made: list[Path], budget: Budget) -> Iterator[tuple[Path, str]]:
    quota = max(1000, int(budget.cpu * _PERIOD))
    for group in made:
        if (group / "memory.max").exists():
            yield group / "memory.max", str(budget.memory)
        if (group / "memory.limit_in_bytes").exists():
            yield group / "memory.limit_in_bytes", str(budget.memory)
        if (group / "cpu.max").exists():
            yield group / "cpu.max", f"{quota} {_PERIOD}"
        if (group / "cpu.cfs_quota_us").exists():
            yield group / "cpu.cfs_period_us", str(_PERIOD)
            yield group / "cpu.cfs_quota_us", str(quota)
