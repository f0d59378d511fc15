"""The program `ciliate`."""

from __future__ import annotations

from typing import NoReturn

from ciliate.cli.dispatch import run
from ciliate.config import LogSection
from ciliate.logs import configure_logs


def main() -> NoReturn:
    """Run one command for the cluster."""
    # What a user must know is a command's error; a log line between would spoil its output. Processes set their own.
    configure_logs(LogSection(level="critical"))
    run("ciliate", "ciliate.commands", "Networking, policy and observability for Kubernetes, in plugins.")
