"""What this kernel can do, tried for real, by name. Each feature is tried once in a process's life.

Nothing that is tried reaches the machine's own devices: interfaces are those of a network namespace made for it.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import functools
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ciliate.kernel import probes
from ciliate.kernel.errors import FeatureMissingError, KernelError


class Feature(enum.Enum):
    """A feature: its name, and the first kernel that has it."""

    RINGBUF = "ringbuf", "5.8"
    LPM = "lpm", "4.11"
    HASH = "hash", "3.19"
    LRU_HASH = "lru_hash", "4.10"
    PERCPU_ARRAY = "percpu_array", "4.6"
    PROG_ARRAY = "prog_array", "4.2"
    MMAPABLE_ARRAY = "mmapable_array", "5.5"
    BATCH = "batch", "5.6"
    BPFFS = "bpffs", "4.4"
    BTF = "btf", "5.4"
    TC_PROGRAM = "tc_program", "4.1"
    SYSCALL_PROGRAM = "syscall_program", "5.14"
    CLSACT = "clsact", "4.5"
    TCX = "tcx", "6.6"
    REDIRECT_PEER = "redirect_peer", "5.10"
    REDIRECT_NEIGH = "redirect_neigh", "5.10"
    SK_ASSIGN = "sk_assign", "5.7"
    COARSE_CLOCK = "coarse_clock", "5.11"
    JIFFIES = "jiffies", "5.5"
    LOOP = "loop", "5.17"
    CGROUP_CONNECT = "cgroup_connect", "4.17"
    XDP = "xdp", "4.8"

    since: str

    def __new__(cls, name: str, since: str) -> Feature:
        """A member is a name with a kernel version."""
        member = object.__new__(cls)
        member._value_ = name
        member.since = since
        return member


@dataclass(frozen=True)
class ProbeResult:
    """Whether a feature is there; `detail` is the kernel's answer if it is not, else empty."""

    feature: Feature
    available: bool
    detail: str = ""


@functools.cache
def probe(feature: Feature) -> ProbeResult:
    """Try one feature. Raises KernelError (EPERM) without the rights to try, which says nothing of the kernel."""
    try:
        _PROBES[feature]()
    except KernelError as error:
        if error.errno == errno.EPERM:
            raise
        return ProbeResult(feature, False, str(error))
    return ProbeResult(feature, True)


def probe_all() -> list[ProbeResult]:
    """Every feature, in the order of `Feature`. About 30 ms the first time."""
    return [probe(feature) for feature in Feature]


def require(feature: Feature, needed_by: str) -> None:
    """Raise FeatureMissingError, naming who needs it, unless the feature is there."""
    result = probe(feature)
    if not result.available:
        raise FeatureMissingError(feature.value, needed_by, feature.since, result.detail)


def lacking(features: Iterable[Feature], needed_by: str) -> str:
    """What this kernel lacks of some features, for an error that may come of it; empty if it has all."""
    missing = [f for f in features if not probe(f).available]
    named = ", ".join(f"{f.value} (since Linux {f.since})" for f in missing)
    return f"kernel {os.uname().release} lacks what {needed_by} needs: {named}" if missing else ""


def _in_namespace(action: Callable[[], None]) -> None:
    """Run an action in a new network namespace, in a thread that ends with it."""
    failure: list[KernelError] = []

    def body() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            if libc.unshare(0x40000000) != 0:  # CLONE_NEWNET
                raise KernelError(ctypes.get_errno(), "making a network namespace to try features in")
            action()
        except KernelError as error:
            failure.append(error)

    thread = threading.Thread(target=body, name="probe")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


def _bpffs() -> None:
    if "bpf" not in Path("/proc/filesystems").read_text().split():
        raise KernelError(errno.ENODEV, "looking for bpf in /proc/filesystems")


_PROBES: dict[Feature, Callable[[], None]] = {
    Feature.RINGBUF: functools.partial(probes.make_map, 27, 0, 0, 65536),
    Feature.LPM: functools.partial(probes.make_map, 11, 20, 8, 8, 1),
    Feature.HASH: functools.partial(probes.make_map, 1, 8, 8, 8),
    Feature.LRU_HASH: functools.partial(probes.make_map, 9, 8, 8, 8),
    Feature.PERCPU_ARRAY: functools.partial(probes.make_map, 6, 4, 8, 8),
    Feature.PROG_ARRAY: functools.partial(probes.make_map, 3, 4, 4, 8),
    Feature.MMAPABLE_ARRAY: probes.map_into_memory,
    Feature.BATCH: probes.read_in_batches,
    Feature.BPFFS: _bpffs,
    Feature.BTF: probes.read_kernel_btf,
    Feature.TC_PROGRAM: functools.partial(probes.load, probes.SCHED_CLS),
    Feature.SYSCALL_PROGRAM: functools.partial(probes.load, probes.SYSCALL, flags=probes.SLEEPABLE),
    Feature.CLSACT: functools.partial(_in_namespace, probes.attach_filter),
    Feature.TCX: functools.partial(_in_namespace, probes.attach_link),
    Feature.REDIRECT_PEER: functools.partial(probes.helper, 155),
    Feature.REDIRECT_NEIGH: functools.partial(probes.helper, 152),
    Feature.SK_ASSIGN: functools.partial(probes.helper, 124),
    Feature.COARSE_CLOCK: functools.partial(probes.helper, 160),
    Feature.JIFFIES: functools.partial(probes.helper, 118),
    Feature.LOOP: functools.partial(probes.helper, 181),
    Feature.CGROUP_CONNECT: functools.partial(probes.load, probes.CGROUP_SOCK_ADDR, attach_type=10),
    Feature.XDP: functools.partial(probes.load, probes.XDP, result=2),
}
