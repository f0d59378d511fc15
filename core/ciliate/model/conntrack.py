"""Conntrack: what the data path remembers of a flow. Maps `conntrack` and `conntrack_new`, written by programs."""

from __future__ import annotations

import enum

import numpy as np

from ciliate.maps.spec import MapKind, MapSpec, Writer


class Leg(enum.IntEnum):
    """Which part of a flow's way an entry stands for (DESIGN, section 6)."""

    BOTH = 0  # source and destination are local and neither verdict redirects to a proxy
    EGRESS = 1
    INGRESS = 2


class ConntrackState(enum.IntEnum):
    """Life of a flow as the programs keep it; decides its timeout."""

    NEW = 0  # no answer yet
    ESTABLISHED = 1
    CLOSING = 2  # FIN or RST seen


CONNTRACK_KEY = np.dtype(
    [
        ("a", "u1", 16),  # the lower of the two ends, by (address, port)
        ("b", "u1", 16),
        ("port_a", ">u2"),  # ICMP echo: the identifier, in both
        ("port_b", ">u2"),
        ("protocol", "u1"),
        ("leg", "u1"),
        ("pad", "<u2"),
    ]
)

CONNTRACK_ENTRY = np.dtype(
    [
        ("word", "<u8"),  # low half: stamp; high half: verdict (see VERDICT_*); read and written whole
        ("endpoint", "<u4", 2),  # local endpoint id of end a and of end b; 0: not local
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
        ("flags", "<u2"),
        ("match_type", "u1", 2),  # of the egress and of the ingress verdict
        ("pad", "u1", 2),
    ]
)

VERDICT_EGRESS = 1 << 32
VERDICT_INGRESS = 1 << 33
VERDICT_AUDIT = 1 << 34
VERDICT_DENY = 1 << 35
VERDICT_PROXY_SHIFT = 48
"""In `word`: what has been judged (the rest of the high half: proxy port, host order, from bit 48)."""

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
