"""The command `ciliate relay`."""

from __future__ import annotations

from ciliate.cli.processes import ConfigOption, SetOption, run


def relay(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Run the cluster's relay of flows."""
    run("relay", config, overrides)
