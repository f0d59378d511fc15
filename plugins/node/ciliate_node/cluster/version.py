"""`ciliate version`: this program's, and what a cluster runs."""

from __future__ import annotations

from typing import Annotated

import typer
from ciliate import __version__
from ciliate.api.routes import ApiError
from ciliate.cli.cluster import NameOption, find_cluster
from ciliate.cli.dispatch import CommandError
from ciliate.store import StoreError


def version(
    name: NameOption = "lab",
    client: Annotated[bool, typer.Option("--client", help="Only this program's.")] = False,
) -> None:
    """Print Ciliate's version, and the versions that the cluster's processes run."""
    print(f"ciliate {__version__}", flush=True)
    if client:
        return
    try:
        report = find_cluster(name).report()
    except (CommandError, ApiError, StoreError):
        return  # no cluster is to be seen from here, and none was asked for
    for component in report.components:
        for running, count in sorted(component.versions.items()):
            print(f"{component.name} {running} ({count} running)")
