"""The program set of a node: loaded, tested, or taken over from the last life; attached hook by hook; exchanged.

A set whose maps have the layouts of the last one's takes its place at once. Otherwise (`exchanging`) it has new maps of
those: what user space writes is filled before anything is attached, and what programs keep of flows is read through
until the rest has been carried over. A set that is refused, or fails its test, changes nothing: the old one goes on.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ciliate
import numpy as np
import structlog
from ciliate.kernel import syscall
from ciliate.kernel.bpffs import ensure_folder
from ciliate.kernel.errors import KernelError
from ciliate.kernel.probe import Feature
from ciliate.maps.registry import MapRegistry
from ciliate.model.conntrack import CONNTRACK_ENTRY, CONNTRACK_MAP, CONNTRACK_OLD_MAP
from ciliate.model.datapath import SWITCHES_MAP
from ciliate.model.endpoint import Endpoint
from ciliate.model.identity import Reserved
from ciliate.programs.attach import Hook, Link, attach_clsact, attach_tcx
from ciliate.programs.elf import LoadError
from ciliate.programs.layouts import LayoutMismatchError
from ciliate.programs.object import ProgramSet
from ciliate.programs.program import Program
from numpy.typing import NDArray

from ciliate_cni import selftest
from ciliate_cni.attach import Devices
from ciliate_cni.conntrack import TIMEOUTS, ticks_per_second
from ciliate_cni.host import HostPair
from ciliate_cni.links import mac_bytes
from ciliate_cni.selftest import SelfTestError

log = structlog.get_logger("cni.datapath")
OBJECT = "node.bpf.o"
_LINK = "ciliate_net"
FEATURES = (
    Feature.HASH, Feature.LPM, Feature.LRU_HASH, Feature.PERCPU_ARRAY, Feature.PROG_ARRAY,
    Feature.MMAPABLE_ARRAY, Feature.RINGBUF, Feature.TC_PROGRAM, Feature.SYSCALL_PROGRAM, Feature.CLSACT,
    Feature.REDIRECT_PEER, Feature.JIFFIES,
)  # fmt: skip
"""What the kernel must have; tcx is used where it is."""
_EVENT_INTERVAL = 5
_DROP_WINDOW = 1
_CARRY_BYTE = 2  # of the mask word: Switch.CARRY


@dataclass
class Datapath:
    """The programs that endpoints and the node's device run."""

    programs: ProgramSet
    fresh: bool
    """Loaded now; else the pinned set was current and goes on."""
    refused: str = ""
    """Why this version's own set is not in use, and an older one is."""
    blocked: tuple[str, ...] = ()
    """Of a refused set: maps of which the older one has others, so that nothing can be written to them now."""
    link: Link | None = None
    """from_host at the node's device, once attached; None: attached by clsact, which needs no pin."""

    @property
    def from_pod(self) -> Program:
        """What every pod's host end runs."""
        return self.programs.program("from_pod")

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
    """Load and test the set, or take over the pinned one if it is equal, or if the new one is refused.

    Nothing is attached. Raises what `ProgramSet.load_or_adopt` raises, and SelfTestError, if there is no older set.
    """
    folder = bpffs / "programs"
    try:
        programs, fresh = ProgramSet.load_or_adopt(path, registry, folder, settings(pair, families), selftest.run)
    except (LoadError, LayoutMismatchError, SelfTestError, KernelError) as error:
        older = ProgramSet.open_pinned(folder)
        if older is None:
            raise
        blocked = tuple(sorted(change.name for change in registry.keep_old()))
        log.error("data path", programs="refused", kept=older.hash, blocked=blocked, reason=str(error))
        return Datapath(older, False, str(error), blocked)
    log.info("data path", programs="loaded" if fresh else "kept", hash=programs.hash)
    return Datapath(programs, fresh)


def exchanging(registry: MapRegistry, programs: ProgramSet) -> bool:
    """Whether the set has maps of another layout than the attached one's, or had when the last life ended."""
    return any(change.name in programs.maps for change in registry.changes) or bool(registry.kept())


def attach(datapath: Datapath, pair: HostPair, bpffs: Path, devices: Devices, endpoints: Iterable[Endpoint]) -> int:
    """Have every hook run the set, each from one packet to the next; of how many pods another program was replaced."""
    replaced = devices.replace(endpoints, datapath.from_pod)
    if datapath.link is not None:
        datapath.link.close()
    datapath.link = _attach_to_host(datapath.programs.program("from_host"), pair, bpffs / "links")
    return replaced


def read_through(registry: MapRegistry, on: bool) -> None:
    """Whether programs that miss a flow look for it in the map that conntrack gave way to."""
    switches = registry.open(SWITCHES_MAP.name, writable=True).mmap(writable=True)
    memoryview(switches.base).cast("B")[_CARRY_BYTE] = int(on)  # type: ignore[arg-type]


def carry_over(registry: MapRegistry) -> tuple[int, int]:
    """Give conntrack the flows of the map that it gave way to and that no packet has carried over yet.

    How many were carried, and how many found no room, which are the idlest. Fields are taken by their names.
    """
    old, new = registry.open(CONNTRACK_OLD_MAP.name), registry.open(CONNTRACK_MAP.name, writable=True)
    if old.spec == CONNTRACK_OLD_MAP:  # nothing gave way, or what did has another layout
        return 0, 0
    keys, entries = old.items()
    there = np.isin(_as_bytes(keys), _as_bytes(new.items()[0]))
    keys, entries = keys[~there], entries[~there]
    newest = np.argsort(entries["seen"])[::-1]
    room = max(0, new.spec.max_entries - int(there.sum()))
    chosen = newest[:room]
    fresh = np.zeros(len(chosen), CONNTRACK_ENTRY)
    for name in set(CONNTRACK_ENTRY.names or ()) & set(entries.dtype.names or ()):
        fresh[name] = entries[name][chosen]
    new.update_batch(keys[chosen], fresh)
    return len(chosen), len(newest) - len(chosen)


def _as_bytes(keys: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(keys).view(np.dtype((np.void, keys.dtype.itemsize)))


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
