"""What commands about a node have in common: options, and how rows are printed."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ciliate.cli.dispatch import CommandError

ProcessOption = Annotated[str, typer.Option("--process", help="Which process of the node.")]
OutputOption = Annotated[str, typer.Option("-o", "--output", help="table or json.")]


def print_rows(rows: list[dict[str, Any]], columns: list[str], output: str) -> None:
    """Print rows as an aligned table of some columns, or whole as JSON. Raises CommandError on another format."""
    if output == "json":
        print(json.dumps(rows, indent=2, default=str))
        return
    if output != "table":
        raise CommandError(f"-o {output}: use table or json")
    cells = [[column.upper().replace("_", " ") for column in columns]]
    cells += [[_cell(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(str(item) for item in value)
    return str(value)
