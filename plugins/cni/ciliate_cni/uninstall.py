"""Taking the plugin off a node: nothing of it is left in the runtime's folders, the kernel or the run folder.

`ciliate-dbg cleanup`, with the agent stopped, takes all of Ciliate off: maps, run folder and state too. Pods lose their
network. `python -m ciliate_cni.uninstall --config FILE` leaves those for a later start.
"""

from __future__ import annotations

import argparse
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from ciliate.api.server import ApiServer, SocketInUseError
from ciliate.cli.cluster import CLUSTERS
from ciliate.cli.dispatch import CommandError
from ciliate.cli.processes import ConfigOption, SetOption, config_path
from ciliate.config import core_config, load_settings
from ciliate.places import node_place
from ciliate.programs.attach import detach_tcx
from ciliate.programs.object import unpin

from ciliate_cni import conflist
from ciliate_cni.attach import Devices
from ciliate_cni.config import CniConfig
from ciliate_cni.deletequeue import FOLDER
from ciliate_cni.host import HostDevice
from ciliate_cni.offers import FOLDER as OFFERS
from ciliate_cni.tcxlinks import TcxLinks


def uninstall(config: CniConfig, run_dir: Path, bpffs: Path) -> None:
    """Remove configuration, shim, devices, pins, socket and queue, in this order. Idempotent. The maps stay."""
    conflist.uninstall(config)
    devices = Devices()
    try:
        devices.purge_orphans([])
    finally:
        devices.close()
    TcxLinks(bpffs / "links").remove_all()
    detach_tcx(bpffs / "links" / "ciliate_net")
    host = HostDevice()
    try:
        host.delete()
    finally:
        host.close()
    unpin(bpffs / "programs")
    for offer in (bpffs / OFFERS).glob("*/*"):
        unpin(offer)
    for folder in [*(bpffs / OFFERS).glob("*"), bpffs / OFFERS]:
        unpin(folder)
    if (bpffs / "links").is_dir():
        (bpffs / "links").rmdir()
    (Path(config.socket) if config.socket else run_dir / "cni.sock").unlink(missing_ok=True)
    shutil.rmtree(run_dir / FOLDER, ignore_errors=True)


def cleanup(
    config: ConfigOption = None,
    overrides: SetOption = None,
    force: Annotated[bool, typer.Option("-f", "--force", help="Don't ask.")] = False,
) -> None:
    """Take Ciliate off this node: devices, programs, maps, what runtimes were told, state. Pods lose their network."""
    settings = load_settings(config_path(config), overrides or ())
    place = node_place(core_config(settings), "agent", "agent")
    if not force and not typer.confirm(f"Remove all of Ciliate from node {place.name}? Its pods lose their network"):
        raise typer.Exit(1)
    try:
        ApiServer(place.run_dir / "agent.sock").claim()  # until this process ends: no agent starts meanwhile
    except SocketInUseError as error:
        raise CommandError(f"the agent runs: {error}") from error
    uninstall(settings.section("cni", CniConfig), place.run_dir, place.bpffs)
    _remove_pins(place.bpffs)
    _remove_folder(place.state_dir)
    _remove_folder(place.run_dir, keep=(CLUSTERS.name,))
    print(f"node {place.name}: nothing of Ciliate is left")


def _remove_pins(bpffs: Path) -> None:
    """All of our folder of the bpffs: maps live as long as their pins."""
    for path in sorted(bpffs.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    if bpffs.is_dir():
        bpffs.rmdir()


def _remove_folder(folder: Path, keep: tuple[str, ...] = ()) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    with suppress(OSError):  # not empty: what is kept; or it is where something was mounted
        folder.rmdir()


def main() -> None:
    """Uninstall from the node that a configuration file describes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    settings = load_settings(parser.parse_args().config)
    place = node_place(core_config(settings), "agent", "agent")
    uninstall(settings.section("cni", CniConfig), place.run_dir, place.bpffs)


if __name__ == "__main__":
    main()
