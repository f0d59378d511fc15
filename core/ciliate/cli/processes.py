"""Commands that are processes: agent, operator, and any other role."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ciliate.config import DEFAULT_FILE, load_settings
from ciliate.host import run_host

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
    run_host(load_settings(config_path(config), overrides or ()), "agent", "agent")


def operator(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Run the cluster's operator."""
    run_host(load_settings(config_path(config), overrides or ()), "operator", "operator")


def run(name: str, config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Run the process of a name, with the enabled plugins that take part in that role."""
    run_host(load_settings(config_path(config), overrides or ()), name, name)
