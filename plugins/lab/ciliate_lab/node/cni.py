"""Calling CNI plugins as a runtime does: a configuration from a folder, the binary with its environment and input."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRY_AGAIN = 11
"""The specification's error code for "not now"."""
TIMEOUT = 60.0


class CniError(Exception):
    """A plugin, or its configuration, refuses; `code` as in the specification, 0 if there was no answer."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Network:
    """A network configuration list."""

    name: str
    version: str
    plugins: list[dict[str, Any]]


@dataclass(frozen=True)
class Attachment:
    """One container's interface."""

    container_id: str
    netns: str
    interface: str
    args: str  # CNI_ARGS


def load_network(folder: Path) -> Network:
    """The first configuration of a folder, by name. Raises CniError if there is none yet, or if it is broken."""
    files = sorted(p for p in folder.glob("*") if p.suffix in (".conflist", ".conf", ".json"))
    if not files:
        raise CniError(f"no CNI configuration in {folder} yet: the agent installs it when it is ready", TRY_AGAIN)
    try:
        conf = json.loads(files[0].read_bytes())
        plugins = conf.get("plugins", [conf])
        return Network(conf["name"], conf.get("cniVersion", "0.3.1"), plugins)
    except (ValueError, KeyError, TypeError) as error:
        raise CniError(f"{files[0]} is not a CNI configuration: {type(error).__name__}: {error}") from error


async def add(network: Network, binaries: Path, attachment: Attachment) -> dict[str, Any]:
    """ADD through every plugin in order; the last one's result. Raises CniError."""
    result: dict[str, Any] | None = None
    for plugin in network.plugins:
        result = await _call("ADD", network, plugin, binaries, attachment, result)
    return result or {}


async def delete(network: Network, binaries: Path, attachment: Attachment, result: dict[str, Any] | None) -> None:
    """DEL through every plugin in reverse, with the result of ADD if there is one. Raises CniError."""
    for plugin in reversed(network.plugins):
        await _call("DEL", network, plugin, binaries, attachment, result)


async def _call(
    verb: str,
    network: Network,
    plugin: dict[str, Any],
    binaries: Path,
    attachment: Attachment,
    previous: dict[str, Any] | None,
) -> dict[str, Any]:
    binary = binaries / plugin["type"]
    conf = {**plugin, "name": network.name, "cniVersion": network.version}
    if previous is not None:
        conf["prevResult"] = previous
    environment = {
        "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": attachment.container_id,
        "CNI_NETNS": attachment.netns,
        "CNI_IFNAME": attachment.interface,
        "CNI_ARGS": attachment.args,
        "CNI_PATH": str(binaries),
    }
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(binary, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
    except OSError as error:
        raise CniError(f"CNI plugin {binary}: {error.strerror}", TRY_AGAIN) from error
    try:
        async with asyncio.timeout(TIMEOUT):
            output, errors = await process.communicate(json.dumps(conf).encode())
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise CniError(f"CNI {verb} by {binary.name} took over {TIMEOUT:g} s and was ended") from error
    return _answer(verb, binary.name, process.returncode or 0, output, errors)


def _answer(verb: str, name: str, status: int, output: bytes, errors: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(output) if output.strip() else {}
    except ValueError:
        answer = {}
    if status == 0:
        return answer if isinstance(answer, dict) else {}
    said = answer.get("msg") or errors.decode(errors="replace").strip() or f"exit status {status}"
    details = answer.get("details")
    raise CniError(f"CNI {verb} by {name}: {said}{f' ({details})' if details else ''}", int(answer.get("code", 0)))
