"""The data path's event record: fixed size, fully parsed; and the counters of packets by reason."""

from __future__ import annotations

import enum

import numpy as np

from ciliate.maps.spec import MapKind, MapSpec, Writer


class EventKind(enum.IntEnum):
    """What a record tells."""

    DROP = 1
    TRACE = 4
    VERDICT = 5
    SOCK = 7


class Point(enum.IntEnum):
    """Where in the path (Hubble's sub_type numbers)."""

    TO_ENDPOINT = 0
    TO_PROXY = 1
    TO_HOST = 2
    TO_STACK = 3
    TO_OVERLAY = 4
    FROM_ENDPOINT = 5
    FROM_PROXY = 6
    FROM_HOST = 7
    FROM_STACK = 8
    FROM_OVERLAY = 9
    FROM_NETWORK = 10
    TO_NETWORK = 11


class MatchType(enum.IntEnum):
    """Which kind of policy-map entry decided (Cilium's numbers)."""

    NONE = 0
    L3_ONLY = 1
    L3_L4 = 2
    L4_ONLY = 3
    ALL = 4
    L3_PROTO = 5
    PROTO_ONLY = 6


class TraceReason(enum.IntEnum):
    """Conntrack's word on the packet (Cilium's numbers)."""

    NEW = 0
    ESTABLISHED = 1
    REPLY = 2
    RELATED = 3
    REOPENED = 4
    UNKNOWN = 5


class SourceFile(enum.IntEnum):
    """EVENT.file: the header of bpf/include/ciliate (node: bpf/node.bpf.c) whose `line` decided a drop."""

    NONE = 0
    NODE = 1
    PARSE = 2
    NEIGHBOUR = 3
    FRAGMENT = 4
    SERVICE = 5
    JUDGE = 6
    FLOW = 7
    ICMP = 8
    DELIVER = 9
    TRANSLATE = 10
    POINT = 11


class EventVerdict(enum.IntFlag):
    """EVENT.verdicts."""

    EGRESS = 1 << 0  # judged
    INGRESS = 1 << 1  # judged
    AUDITED = 1 << 2  # denied, and let pass
    ENCRYPTED = 1 << 3
    REPLY = 1 << 4


EVENT = np.dtype(
    [
        ("time", "<u8"),  # ns, CLOCK_MONOTONIC (coarse)
        ("kind", "u1"),  # EventKind
        ("point", "u1"),  # Point
        ("reason", "u1"),  # DropReason or 0
        (
            "verdicts",
            "u1",
        ),  # bit 0: judged egress, bit 1: judged ingress, bit 2: audited, bit 3: encrypted, bit 4: reply
        ("protocol", "u1"),
        ("tcp_flags", "u1"),
        ("ct_state", "u1"),  # TraceReason
        ("file", "u1"),  # SourceFile
        ("line", "<u2"),
        ("match_egress", "u1"),  # MatchType
        ("match_ingress", "u1"),
        ("source_endpoint", "<u4"),
        ("destination_endpoint", "<u4"),
        ("source_identity", "<u4"),
        ("destination_identity", "<u4"),
        ("source", "u1", 16),
        ("destination", "u1", 16),
        ("original_source", "u1", 16),  # before translation; zeros: untranslated
        ("original_destination", "u1", 16),
        ("source_port", "<u2"),  # host order; ICMP: type
        ("destination_port", "<u2"),  # ICMP: code
        ("original_source_port", "<u2"),
        ("original_destination_port", "<u2"),
        ("rule_set_egress", "<u4"),
        ("rule_set_ingress", "<u4"),
        ("proxy_port", "<u2"),
        ("ether_type", "<u2"),
        ("ifindex", "<u4"),
        ("source_mac", "u1", 6),
        ("destination_mac", "u1", 6),
        ("tunnel_id", "<u4"),
        ("length", "<u4"),  # bytes of this packet
        ("packets", "<u4"),  # of the flow since its last event, this one included
        ("direction", "u1"),  # of a drop: policy.Direction, 2 if unknown
        ("plugin_slot", "u1"),  # of a drop with reason PLUGIN: 1 + the slot of the point whose program dropped; else 0
        ("pad", "u1", 2),
        ("socket_cookie", "<u8"),
        ("cgroup_id", "<u8"),
    ]
)

EVENTS_MAP = MapSpec(
    "events",
    MapKind.RINGBUF,
    np.dtype("<u4"),
    EVENT,
    16 * 1024 * 1024,
    "The one ring buffer of EVENT records (max_entries: bytes); drained by the process that `events.drain` names.",
    writer=Writer.PROGRAM,
)

PACKETS_ENTRY = np.dtype([("packets", "<u8"), ("bytes", "<u8")])
PACKETS_MAP = MapSpec(
    "packets",
    MapKind.PERCPU_ARRAY,
    np.dtype("<u4"),  # reason << 1 | direction
    PACKETS_ENTRY,
    512,
    "Drop reason (0: forwarded) and direction to packets and bytes.",
    writer=Writer.PROGRAM,
)

EVENTS_LOST_MAP = MapSpec(
    "events_lost",
    MapKind.PERCPU_ARRAY,
    np.dtype("<u4"),
    np.dtype("<u8"),
    1,
    "Slot 0: events for which the ring had no room.",
    writer=Writer.PROGRAM,
)
