"""The program set of a node: loaded or taken over from the last life, pinned, attached to the node's own device."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import ciliate
import structlog
from ciliate.kernel import syscall
from ciliate.kernel.bpffs import ensure_folder
from ciliate.kernel.errors import KernelError
from ciliate.kernel.probe import Feature
from ciliate.maps.registry import MapRegistry
from ciliate.model.identity import Reserved
from ciliate.programs.attach import Hook, Link, attach_clsact, attach_tcx
from ciliate.programs.object import ProgramSet
from ciliate.programs.program import Program

from ciliate_cni.conntrack import TIMEOUTS, ticks_per_second
from ciliate_cni.host import HostPair
from ciliate_cni.links import mac_bytes

log = structlog.get_logger("cni.datapath")
OBJECT = "node.bpf.o"
_LINK = "ciliate_net"
FEATURES = (
    Feature.HASH, Feature.LPM, Feature.LRU_HASH, Feature.PERCPU_ARRAY, Feature.MMAPABLE_ARRAY, Feature.RINGBUF,
    Feature.TC_PROGRAM, Feature.SYSCALL_PROGRAM, Feature.CLSACT, Feature.REDIRECT_PEER, Feature.JIFFIES,
)  # fmt: skip
"""What the kernel must have; tcx is used where it is."""
_EVENT_INTERVAL = 5
_DROP_WINDOW = 1


@dataclass(frozen=True)
class Datapath:
    """The programs that endpoints and the node's device run."""

    programs: ProgramSet
    fresh: bool
    """Loaded now; else the pinned set was current and goes on."""
    link: Link | None
    """from_host at the node's device; None: attached by clsact, which needs no pin."""

    @property
    def from_pod(self) -> Program:
        """What every pod's host end runs."""
        return self.programs.program("from_pod")

    @property
    def collect(self) -> Program:
        """What removes conntrack entries."""
        return self.programs.program("conntrack_collect")

    def repin(self, registry: MapRegistry, bpffs: Path) -> list[str]:
        """Pin anew what somebody has unpinned, so that it outlives this process; what that was. Raises KernelError."""
        lost = [f"map {name}" for name in registry.repin()]
        if self.programs.repin(bpffs / "programs"):
            lost.append("the programs")
        pin_path = bpffs / "links" / _LINK
        if self.link is not None and not os.path.lexists(pin_path):
            ensure_folder(pin_path.parent)
            syscall.pin(self.link.fd, pin_path)
            lost.append(f"the link of {_LINK}")
        return lost

    def close(self) -> None:
        """Let go of the programs; they go on in the kernel."""
        self.programs.close()
        if self.link is not None:
            self.link.close()


def object_file(configured: str) -> Path:
    """The compiled programs. Raises FileNotFoundError that says how to compile them."""
    folder = Path(configured) if configured else Path(ciliate.__file__).parent / "_bpf" / "build"
    path = folder / OBJECT
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "the compiled programs are missing; run `make bpf`", str(path))
    return path


def settings(pair: HostPair, families: Iterable[int]) -> dict[str, int | bytes]:
    """The read-only data that the programs are loaded with."""
    hz, enabled = ticks_per_second(), set(families)
    both = len(enabled) == 2
    return {
        "host_ifindex": pair.host_index,
        "host_mac": mac_bytes(pair.mac),
        "ipv4_enabled": int(4 in enabled),
        "ipv6_enabled": int(6 in enabled),
        "world_ipv4_identity": int(Reserved.WORLD_IPV4 if both else Reserved.WORLD),
        "world_ipv6_identity": int(Reserved.WORLD_IPV6 if both else Reserved.WORLD),
        **{name: seconds * hz for name, seconds in TIMEOUTS.items()},
        "event_interval": _EVENT_INTERVAL * hz,
        "drop_window": _DROP_WINDOW * hz,
    }


def load(path: Path, registry: MapRegistry, bpffs: Path, pair: HostPair, families: Iterable[int]) -> Datapath:
    """Load the set, or take over the pinned one if it is equal, and have from_host judge what the host sends to pods.

    Raises what `ProgramSet.load_or_adopt` raises; then all that is attached stays as it was.
    """
    programs, fresh = ProgramSet.load_or_adopt(path, registry, bpffs / "programs", settings(pair, families))
    link = _attach_to_host(programs.program("from_host"), pair, bpffs / "links")
    log.info("data path", programs="loaded" if fresh else "kept", hash=programs.hash)
    return Datapath(programs, fresh, link)


def _attach_to_host(program: Program, pair: HostPair, folder: Path) -> Link | None:
    """By tcx where the kernel has it, since a packet's way is shorter there; else by clsact."""
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        return attach_tcx(pair.net_index, program, Hook.INGRESS, folder / _LINK)
    except KernelError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        attach_clsact(pair.net_index, program)
        return None
