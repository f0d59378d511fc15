"""The program `ciliate-dbg`."""

from __future__ import annotations

from typing import NoReturn

from ciliate.cli.dispatch import run


def main() -> NoReturn:
    """Run one command on one node."""
    run("ciliate-dbg", "ciliate.dbg_commands", "Looks into one node: its endpoints, maps and events.")
