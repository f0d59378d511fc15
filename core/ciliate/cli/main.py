"""The program `ciliate`."""

from __future__ import annotations

from typing import NoReturn

from ciliate.cli.dispatch import run


def main() -> NoReturn:
    """Run one command for the cluster."""
    run("ciliate", "ciliate.commands", "Networking, policy and observability for Kubernetes, in plugins.")
