"""Aligned columns."""

from __future__ import annotations

from collections.abc import Sequence

_GAP = 3


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length as lines; all columns but the last are padded."""
    widths = [max(len(row[place]) for row in rows) + _GAP for place in range(len(rows[0]) - 1)]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[-1] for row in rows
    )
