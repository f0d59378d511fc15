"""Points of a packet's path at which plugins' programs run, and what is kept of them.

A plugin declares a program through the hook `ciliate_programs`; who keeps a point puts it into one of the point's eight
slots. Programs see a packet as PLUGIN_PACKET (bpf/include/ciliate/plugin.h, the public header) and answer Answer.
"""

from __future__ import annotations

import enum

import numpy as np

from ciliate.maps.spec import MapFlag, MapKind, MapSpec, Writer

SLOTS = 8
"""Of each point; their programs are called in this order."""


class PluginPoint(enum.IntEnum):
    """Where a plugin's program can run. Its name in small letters is what a plugin declares."""

    FROM_POD = 0  # what a pod sends, once a packet, before anything of it is judged


class Answer(enum.IntEnum):
    """What a program may say of a packet; anything else counts as CONTINUE, and is counted as invalid."""

    CONTINUE = 0
    DROP = 2


_INDEX = np.dtype("<u4")

PLUGIN_PACKET = np.dtype(
    [
        ("version", "<u2"),
        ("transport", "<u2"),
        ("family", "u1"),
        ("protocol", "u1"),
        ("direction", "u1"),
        ("fragment", "u1"),
        ("tcp_flags", "u1"),
        ("icmp_type", "u1"),
        ("icmp_code", "u1"),
        ("pad", "u1"),
        ("length", "<u4"),
        ("endpoint", "<u4"),
        ("identity", "<u4"),
        ("source_port", "<u2"),
        ("destination_port", "<u2"),
        ("reserved_word", "<u4"),
        ("source", "u1", 16),
        ("destination", "u1", 16),
        ("reserved", "u1", 32),
    ]
)
POINT_PACKET_MAP = MapSpec(
    "point_packet",
    MapKind.PERCPU_ARRAY,
    _INDEX,
    PLUGIN_PACKET,
    1,
    "Slot 0: the packet that this CPU works on, for plugins' programs to read. Public.",
    writer=Writer.PROGRAM,
)

FROM_POD_SLOTS_MAP = MapSpec(
    "from_pod_slots",
    MapKind.PROG_ARRAY,
    _INDEX,
    _INDEX,
    SLOTS,
    "Slot of the point from_pod to the program in it (written: a descriptor; read: the program's id).",
)

POINT_SLOTS_MAP = MapSpec(
    "point_slots",
    MapKind.ARRAY,
    _INDEX,
    _INDEX,
    8,
    "PluginPoint to the mask of its slots in use.",
    MapFlag.MMAPABLE,
)

POINT_ENTRY = np.dtype(
    [
        ("packets", "<u8"),
        ("drops", "<u8"),
        ("invalid", "<u8"),  # answers that are none
        ("missed", "<u8"),  # the slot was empty
        ("samples", "<u8"),  # packets of which the time was taken, one in 1,024
        ("time", "<u8"),  # ns, of the samples
    ]
)
POINT_STATS_MAP = MapSpec(
    "point_stats",
    MapKind.PERCPU_ARRAY,
    _INDEX,
    POINT_ENTRY,
    8 * SLOTS,
    "PluginPoint * 8 + slot to what was seen of its program.",
    writer=Writer.PROGRAM,
)
