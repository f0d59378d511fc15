"""The program set as a whole: its file, its settings (read-only data) and the switches of its optional stages.

Programs of bpf/node.bpf.c: `from_pod` (ingress of each pod's host end), `from_host` (ingress of ciliate_net),
`conntrack_collect` and `conntrack_recount` (run by user space; see model/conntrack.py).
"""

from __future__ import annotations

import enum
import time
from typing import TypedDict, Unpack, cast

import numpy as np

from ciliate.maps.spec import MapFlag, MapKind, MapSpec

OBJECT = "node.bpf.o"
"""The object file, in the folder that bpf/Makefile builds."""


class Settings(TypedDict, total=False):
    """Read-only data of the program set, by the names of its C variables (bpf/include/ciliate/config.h)."""

    host_ifindex: int  # of ciliate_host
    host_mac: bytes  # of ciliate_host, 6 bytes
    ipv4_enabled: int
    ipv6_enabled: int
    world_ipv4_identity: int  # of an address that the ipcache doesn't know
    world_ipv6_identity: int
    loopback_ipv4: bytes  # 16: source that a pod sees when it reaches itself through a service
    loopback_ipv6: bytes
    timeout_tcp: int  # this and all below in ticks: see `ticks`
    timeout_any: int
    timeout_syn: int
    timeout_fin: int
    event_interval: int
    drop_burst: int  # of drops that look alike, so many are reported in each drop_window
    drop_window: int


def settings(**values: Unpack[Settings]) -> dict[str, int | bytes]:
    """Settings as ProgramSet.load takes them, checked for their names and types by the type checker."""
    return cast("dict[str, int | bytes]", values)


def ticks(seconds: float) -> int:
    """Seconds as ticks of this kernel, the unit of `seen` and of all times in Settings."""
    return round(seconds / time.clock_getres(CLOCK_MONOTONIC_COARSE))


CLOCK_MONOTONIC_COARSE = 6
"""Its resolution is one tick (linux/time.h)."""


class Switch(enum.IntFlag):
    """Bits of the one word of `switches`, which says which optional stages have work."""

    SERVICES = 1 << 0  # set by who writes services: packets of pods are looked up in them
    SPLIT = 1 << 1  # set by programs: conntrack has entries of one leg
    MAPPED = 1 << 2  # set by programs: conntrack has translated flows
    POINTS = 1 << 8  # the first of the extension points' bits: byte 1 is user space's, which stores it whole
    CARRY = 1 << 16  # set while program sets are exchanged: conntrack_old has flows; byte 2 likewise


SWITCHES_MAP = MapSpec(
    "switches",
    MapKind.ARRAY,
    np.dtype("<u4"),
    np.dtype("<u4"),
    1,
    "Slot 0: mask of the stages that have work.",
    MapFlag.MMAPABLE,
)
