"""What `hubble` prints of the answers in serving.py, by command line: standard output, and errors if there are any."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
GOLDEN = {
    "compact": "observe",
    "compact-names": "observe --print-node-name --print-policy-names --use-default-field-masks=false",
    "compact-addresses": "observe --ip-translation=false -s",
    "compact-colours": "observe --color always -s",
    "dict": "observe -o dict",
    "dict-names": "observe -o dict --print-node-name --print-policy-names --use-default-field-masks=false -s",
    "dict-colours": "observe -o dict --color always -s",
    "table": "observe -o table -s",
    "table-names": "observe -o table --print-node-name --print-policy-names --use-default-field-masks=false -s",
    "json": "observe -o json",
    "time-YearMonthDayHour": "observe -s --time-format YearMonthDayHour",
    "time-RFC3339Micro": "observe -s --time-format RFC3339Micro",
    "time-RFC3339Nano": "observe -s --time-format RFC3339Nano",
    "time-RFC1123Z": "observe -s --time-format RFC1123Z",
    "agent-events": "observe agent-events --print-node-name",
    "status": "status",
    "status-dict": "status -o dict",
    "status-table": "status -o table",
    "status-json": "status -o json",
    "nodes": "list nodes",
    "nodes-wide": "list nodes -o wide",
    "nodes-json": "list nodes -o json",
    "namespaces": "list namespaces",
    "namespaces-wide": "list namespaces -o wide",
    "namespaces-json": "list namespaces -o json",
    "peers": "watch peers",
    "filters": "observe --print-raw-filters --pod a --not --ip 1.1.1.1 --port 80 --cel-expression \"_flow.uuid=='x'\"",
    "no-filters": "observe --print-raw-filters",
}
"""Names of files to command lines."""


def expected(name: str, errors: bool = False) -> str:
    """What is printed."""
    path = FOLDER / f"{name}{'.err' if errors else ''}.txt"
    return path.read_text() if path.exists() else ""
