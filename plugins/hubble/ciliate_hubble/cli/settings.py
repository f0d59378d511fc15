"""Flags of a server, from the command line, else the environment (HUBBLE_TLS_SERVER_NAME), else a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ciliate_hubble.cli.flags import Flag, Given, UsageError, truth
from ciliate_hubble.cli.options import SERVER
from ciliate_hubble.cli.times import duration


@dataclass(frozen=True)
class ServerSettings:
    """How to reach a server. Empty: not said."""

    server: str = ""
    lab: str = "lab"
    lab_named: bool = False  # somebody said which
    tls: bool = False
    ca_files: tuple[Path, ...] = ()
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str = ""
    insecure: bool = False
    user: str = ""
    password: str = ""
    timeout: float = 5.0
    request_timeout: float = 12.0
    origins: Mapping[str, str] = field(default_factory=dict)  # where a setting came from, by the flag's name


def server_settings(given: Sequence[Given]) -> ServerSettings:
    """All settings of the server. Raises UsageError."""
    values: dict[str, str] = {}
    origins: dict[str, str] = {}
    flags = {flag.name: flag for flag in SERVER}
    typed = {one.name: one.value for one in given if one.name in flags}
    file = _file(typed.get("config") or os.environ.get("HUBBLE_CONFIG", ""), flags)
    for name in flags:
        variable = f"HUBBLE_{name.upper().replace('-', '_')}"
        for origin, known, key in ((f"--{name}", typed, name), (variable, os.environ, variable), ("file", file, name)):
            if known.get(key, "") != "" and name != "name":
                values.setdefault(name, known[key])
                origins.setdefault(name, origin)
    lab = typed.get("name") or os.environ.get("CILIATE_LAB", "")
    return ServerSettings(
        server=values.get("server", ""),
        lab=lab or "lab",
        lab_named=bool(lab),
        tls=_truth(values, origins, "tls"),
        ca_files=tuple(Path(part) for part in values.get("tls-ca-cert-files", "").split(",") if part),
        cert_file=_path(values, "tls-client-cert-file"),
        key_file=_path(values, "tls-client-key-file"),
        server_name=values.get("tls-server-name", ""),
        insecure=_truth(values, origins, "tls-allow-insecure"),
        user=values.get("basic-auth-username", ""),
        password=values.get("basic-auth-password", ""),
        timeout=_seconds(values, origins, "timeout", "5s"),
        request_timeout=_seconds(values, origins, "request-timeout", "12s"),
        origins=origins,
    )


def _truth(values: dict[str, str], origins: dict[str, str], name: str) -> bool:
    return name in values and truth(origins[name], values[name])


def _path(values: dict[str, str], name: str) -> Path | None:
    return Path(values[name]) if values.get(name) else None


def _seconds(values: dict[str, str], origins: dict[str, str], name: str, default: str) -> float:
    seconds = duration(origins.get(name, f"--{name}"), values.get(name, default)) / 1e9
    if seconds <= 0:
        raise UsageError(f"{origins.get(name, f'--{name}')}: must be above 0")
    return seconds


def _file(named: str, flags: Mapping[str, Flag]) -> dict[str, str]:
    """Settings of the file that is named, or else of the usual one if it is there; what is not ours is left alone."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    usual = (home / "hubble/config.yaml", Path.home() / ".hubble/config.yaml")
    path = Path(named) if named else next((each for each in usual if each.exists()), None)
    if path is None:
        return {}
    import yaml

    try:
        found: Any = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"--config: {path} can't be read: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"--config: {path} must have flags and their values, as `server: localhost:4245`")
    return {name: _text(value) for name, value in found.items() if name in flags and value is not None}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
