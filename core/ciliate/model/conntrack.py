"""Conntrack: what the data path remembers of a flow. Maps `conntrack` and `conntrack_new`, written by programs.

A flow that is over, or of an endpoint that is gone, stays until user space takes it out: it reads the tables in
batches, stores the keys of those that look so in `collect_keys` and runs the program `conntrack_collect` with a
COLLECT_CONTEXT; that looks again and removes them.
"""

from __future__ import annotations

import enum

import numpy as np

from ciliate.maps.spec import MapFlag, MapKind, MapSpec, Writer
from ciliate.model.endpoint import ENDPOINTS_MAX


class Leg(enum.IntEnum):
    """Which part of a flow's way an entry stands for (DESIGN, section 6)."""

    BOTH = 0  # the tuple crosses the node once, whichever of its ends are local; VERDICT_* tell what was judged
    EGRESS = 1  # from a local endpoint to a proxy, or to the host that sends it back
    INGRESS = 2  # from there to a local endpoint


class ConntrackState(enum.IntEnum):
    """Life of a flow as the programs keep it; decides its timeout."""

    NEW = 0  # no answer yet
    ESTABLISHED = 1
    CLOSING = 2  # RST, or FIN from both ends, seen


CONNTRACK_KEY = np.dtype(
    [
        ("a", "u1", 16),  # the lower of the two ends, by (address, port)
        ("b", "u1", 16),
        ("port_a", ">u2"),  # ICMP echo: the identifier at the requester's end, 0 at the other
        ("port_b", ">u2"),
        ("protocol", "u1"),
        ("leg", "u1"),
        ("pad", "<u2"),
    ]
)

CONNTRACK_ENTRY = np.dtype(
    [
        ("word", "<u8"),  # low half: stamp; high half: verdict (see VERDICT_*); read and written whole
        ("endpoint", "<u4", 2),  # local endpoint id of end a and of end b; 0: beyond the host, on this leg
        ("generation", "<u4", 2),
        ("identity", "<u4", 2),
        ("rule_set", "<u4", 2),  # of the egress and of the ingress verdict
        ("seen", "<u8"),  # jiffies64 of the last packet
        ("event_seen", "<u8"),  # jiffies64 of the last event
        ("packets", "<u4", 2),  # by direction: of the original, of the reply
        ("bytes", "<u8", 2),
        ("event_packets", "<u4"),  # since the last event
        ("service", "<u2"),  # reverse-translation id; 0: untranslated
        ("state", "u1"),
        ("origin", "u1"),  # which end began: 0 a, 1 b
        ("tcp_flags", "u1", 2),  # seen, by direction
        ("flags", "<u2"),  # CONNTRACK_*
        ("match_type", "u1", 2),  # of the egress and of the ingress verdict
        ("original_port", ">u2"),  # of a translated flow: the source port that its client uses
    ]
)

CONNTRACK_ENTRY_OLD = CONNTRACK_ENTRY
"""The entry of the program set before this one: another where the layout has changed (bpf/include/ciliate/carry.h)."""

VERDICT_EGRESS = 1 << 32
VERDICT_INGRESS = 1 << 33
VERDICT_AUDIT = 1 << 34
VERDICT_PROXY_SHIFT = 48
"""In `word`: what has been judged (the rest of the high half: proxy port, host order, from bit 48). Only allowed flows
have entries; one that was denied since keeps a stale stamp and is judged at each packet."""

CONNTRACK_LOOPBACK = 1 << 0
"""`flags`: a pod that reaches itself through a service; its source is the loopback address, no policy applies."""
CONNTRACK_FROM_PROXY = 1 << 1
"""`flags`: a proxy began this leg; its replies go back to the proxy."""

CONNTRACK_MAP = MapSpec(
    "conntrack",
    MapKind.HASH,
    CONNTRACK_KEY,
    CONNTRACK_ENTRY,
    524_288,
    "Tuple and leg of an answered flow to its entry. Never evicted.",
    writer=Writer.PROGRAM,
)
CONNTRACK_NEW_MAP = MapSpec(
    "conntrack_new",
    MapKind.LRU_HASH,
    CONNTRACK_KEY,
    CONNTRACK_ENTRY,
    65_536,
    "Tuple and leg of a flow that nobody has answered yet.",
    writer=Writer.PROGRAM,
)

CONNTRACK_OLD_MAP = MapSpec(
    "conntrack_old",
    MapKind.HASH,
    CONNTRACK_KEY,
    CONNTRACK_ENTRY_OLD,
    1,
    "While program sets are exchanged: what conntrack gave way to. Empty at all other times.",
    writer=Writer.PROGRAM,
    predecessor_of="conntrack",
)

ENDPOINT_FLOWS_ENTRY = np.dtype(
    [
        ("flows", "<i4"),  # entries of `conntrack`; for a moment it may be below 0
        ("limit", "<u4"),  # with so many, no new one is begun; 0: no limit
    ]
)
ENDPOINT_FLOWS_MAP = MapSpec(
    "endpoint_flows",
    MapKind.ARRAY,
    np.dtype("<u4"),
    ENDPOINT_FLOWS_ENTRY,
    ENDPOINTS_MAX,
    "Endpoint id to how many answered flows it has, and may have.",
    MapFlag.MMAPABLE,
    writer=Writer.PROGRAM,
)
"""A flow counts for the endpoint that began it, or, if that is beyond the host, for the one that it reaches.

Programs count, atomically; user space stores the limits. What a count is wrong by, after a change of program sets for
instance, is found when the table is read, and put right by the program `conntrack_recount` with a RECOUNT_CONTEXT.
"""

RECOUNT_CONTEXT = np.dtype([("endpoint", "<u4"), ("change", "<i4")])
"""The context of the program `conntrack_recount`: what to add to an endpoint's `flows`."""

COLLECT_MAX = 1024
COLLECT_KEYS_MAP = MapSpec(
    "collect_keys",
    MapKind.ARRAY,
    np.dtype("<u4"),
    CONNTRACK_KEY,
    COLLECT_MAX,
    "Slot to the key of a flow that user space takes for over.",
    MapFlag.MMAPABLE,
)


class CollectTable(enum.IntEnum):
    """COLLECT_CONTEXT.table: what the keys are of."""

    MAIN = 0  # conntrack
    NEW = 1  # conntrack_new
    SERVICE = 2  # service_flows


COLLECT_CONTEXT = np.dtype(
    [
        ("count", "<u4"),  # in: how many slots of collect_keys
        ("table", "<u4"),  # in: CollectTable
        ("deleted", "<u4"),
        ("kept", "<u4"),  # there was a packet meanwhile, or it was gone
        ("now", "<u8"),  # jiffies64, the clock of `seen`
    ]
)
"""The context of the program `conntrack_collect`, in and out. With count 0 it just tells the time."""
