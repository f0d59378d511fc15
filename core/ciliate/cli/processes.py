"""Commands that are processes: agent, operator, and any other role."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ciliate.cli.dispatch import CommandError
from ciliate.config import DEFAULT_FILE, load_settings
from ciliate.host import StartError, run_host

ConfigOption = Annotated[Path | None, typer.Option("--config", help="A YAML file, or a folder with a file a key.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a value.")]


def config_path(given: Path | None) -> Path | None:
    """The configuration to use: the one given, CILIATE_CONFIG, the default file if there is one."""
    if given is not None:
        return given
    if (named := os.environ.get("CILIATE_CONFIG")) is not None:
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def agent(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Run the node's agent."""
    _run(config, overrides, "agent")


def operator(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Run the cluster's operator."""
    _run(config, overrides, "operator")


def run(name: str, config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Run the process of a name, with the enabled plugins that take part in that role."""
    _run(config, overrides, name)


def _run(config: Path | None, overrides: list[str] | None, name: str) -> None:
    if os.geteuid() != 0:  # before anything that only root can read
        raise CommandError("must run as root: it makes network devices and loads BPF programs")
    try:
        run_host(load_settings(config_path(config), overrides or ()), name, name)
    except StartError as error:
        raise CommandError(str(error)) from error
