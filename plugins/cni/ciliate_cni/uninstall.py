"""Taking the plugin off a node: nothing of it is left in the runtime's folders, the kernel or the run folder.

`python -m ciliate_cni.uninstall --config FILE`, with the agent stopped. Pods lose their network.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

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


def main() -> None:
    """Uninstall from the node that a configuration file describes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    settings = load_settings(parser.parse_args().config)
    place = node_place(core_config(settings), "agent", "agent")
    uninstall(settings.section("cni", CniConfig), place.run_dir, place.bpffs)


if __name__ == "__main__":
    main()
