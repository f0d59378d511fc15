"""The program `ciliate-dbg`."""

from __future__ import annotations

from typing import NoReturn

from ciliate.cli.dispatch import run
from ciliate.config import LogSection
from ciliate.logs import configure_logs


def main() -> NoReturn:
    """Run one command on one node."""
    configure_logs(LogSection(level="critical"))  # a log line between would spoil a command's output
    run("ciliate-dbg", "ciliate.dbg_commands", "Looks into one node: its endpoints, maps and events.")
