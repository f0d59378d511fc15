"""What a container runtime needs of us in its folders: the configuration list, and the shim. Each appears whole."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import structlog

from ciliate_cni.config import CniConfig
from ciliate_cni.netconf import VERSIONS

log = structlog.get_logger("cni.conflist")
SHIM = "ciliate-cni"
BACKUP = ".ciliate_bak"
_COMMON_VERSION = "1.0.0"  # the newest that libcni before 1.2 reads; newer ones choose from cniVersions


def shim_file() -> Path:
    """The built shim. Raises FileNotFoundError that says how to build it."""
    path = Path(__file__).parent / "_bin" / SHIM
    if not path.exists():
        raise FileNotFoundError(2, "the CNI binary is not built; run `make -C plugins/cni/shim`", str(path))
    return path


def render(config: CniConfig, socket: Path) -> bytes:
    """The configuration list."""
    plugin = {"type": SHIM, "socket": str(socket)}
    if config.mtu:
        plugin["mtu"] = config.mtu  # type: ignore[assignment]
    body = {"cniVersion": _COMMON_VERSION, "cniVersions": list(VERSIONS), "name": config.network, "plugins": [plugin]}
    return json.dumps(body, indent=2).encode() + b"\n"


def install(config: CniConfig, socket: Path) -> Path:
    """Install the binary, then the configuration that has runtimes call it; the configuration's path."""
    binary = Path(config.bin_dir) / SHIM
    binary.parent.mkdir(parents=True, exist_ok=True)
    _replace(binary, shim_file().read_bytes(), 0o755)
    conflist = Path(config.conf_dir) / config.conflist
    conflist.parent.mkdir(parents=True, exist_ok=True)
    if config.exclusive:
        _set_others_aside(conflist)
    _replace(conflist, render(config, socket), 0o644)
    log.info("installed for the container runtime", conflist=str(conflist), binary=str(binary))
    return conflist


def uninstall(config: CniConfig) -> None:
    """Remove the configuration, then the binary, and give other configurations their names back. Idempotent."""
    folder = Path(config.conf_dir)
    (folder / config.conflist).unlink(missing_ok=True)
    for aside in folder.glob(f"*{BACKUP}"):
        aside.rename(aside.with_name(aside.name.removesuffix(BACKUP)))
    (Path(config.bin_dir) / SHIM).unlink(missing_ok=True)


def _set_others_aside(conflist: Path) -> None:
    for other in sorted(conflist.parent.iterdir()):
        if other != conflist and other.suffix in (".conf", ".conflist", ".json"):
            other.rename(other.with_name(other.name + BACKUP))
            log.warning("another network configuration was set aside", file=str(other), now=other.name + BACKUP)


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole and durably; one that is equal is left alone."""
    if path.exists() and path.read_bytes() == content and path.stat().st_mode & 0o777 == mode:
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        shutil.move(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
