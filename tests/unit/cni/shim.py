"""Calling the real shim, as a runtime does."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOM = Path(__file__).parents[3] / "plugins" / "cni"
BINARY = ROOM / "ciliate_cni" / "_bin" / "ciliate-cni"


@dataclass(frozen=True)
class Outcome:
    """The shim's exit status and output."""

    status: int
    output: bytes

    @property
    def json(self) -> Any:
        """The output as JSON; None if there is none."""
        return json.loads(self.output) if self.output else None


def build() -> Path:
    """The shim, built if it is older than its source."""
    subprocess.run(["make", "-s", "-C", str(ROOM / "shim")], check=True, capture_output=True)
    return BINARY


def environment(command: str, **variables: str) -> dict[str, str]:
    """The environment of a call; variables without their prefix: netns=..., containerid=..."""
    named = {f"CNI_{name.upper()}": value for name, value in variables.items()}
    return {"PATH": os.environ["PATH"], "CNI_COMMAND": command, **named}


def conf(socket: Path | str, version: str = "1.1.0", **more: Any) -> bytes:
    """A network configuration."""
    return json.dumps(
        {"cniVersion": version, "name": "ciliate", "type": "ciliate-cni", "socket": str(socket), **more}
    ).encode()


def call(command: str, config: bytes, extra: dict[str, str] | None = None, /, **variables: str) -> Outcome:
    """Run the shim once."""
    env = {**environment(command, **variables), **(extra or {})}
    done = subprocess.run([BINARY], input=config, env=env, capture_output=True, timeout=60, check=False)
    return Outcome(done.returncode, done.stdout)
