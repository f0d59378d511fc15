"""Services as the data path translates them: maps only, all empty until a load balancer writes them.

Maps: `services`, `backends`, `service_reverse`, written by user space; `service_new` and `service_flows`, which
programs write: what a flow was translated to. The stage runs only while Switch.SERVICES is set (model/datapath.py).
"""

from __future__ import annotations

import numpy as np

from ciliate.maps.spec import MapFlag, MapKind, MapSpec, Writer
from ciliate.model.conntrack import CONNTRACK_KEY

SERVICE_DIRECT = 0xFFFF
"""Not a service's number: a flow to no service whose source port was changed, as a service's flow had its tuple."""

SERVICE_KEY = np.dtype([("address", "u1", 16), ("port", ">u2"), ("protocol", "u1"), ("pad", "u1")])
SERVICE_ENTRY = np.dtype(
    [
        ("service", "<u2"),  # 1 to SERVICE_DIRECT - 1; the key's first part of its backends
        ("count", "<u2"),  # of backends; 0: dropped, SERVICE_BACKEND_NOT_FOUND
        ("flags", "<u4"),
    ]
)
BACKEND_KEY = np.dtype([("service", "<u2"), ("slot", "<u2")])  # slot: 1 to the service's count
BACKEND_ENTRY = np.dtype([("address", "u1", 16), ("port", ">u2"), ("pad", "<u2")])
SERVICE_FLOW_ENTRY = np.dtype(
    [
        ("backend", "u1", 16),
        ("seen", "<u8"),  # jiffies64 of the client's last packet
        ("port", ">u2"),  # the backend's
        ("source_port", ">u2"),  # that the backend sees
        ("service", "<u2"),
        ("loopback", "u1"),  # the backend is the client itself
        ("pad", "u1"),
    ]
)

SERVICES_MAP = MapSpec(
    "services",
    MapKind.HASH,
    SERVICE_KEY,
    SERVICE_ENTRY,
    65_536,
    "Address, port and protocol to service.",
    MapFlag.NO_PREALLOC,
)
BACKENDS_MAP = MapSpec(
    "backends",
    MapKind.HASH,
    BACKEND_KEY,
    BACKEND_ENTRY,
    262_144,
    "Service and slot to backend.",
    MapFlag.NO_PREALLOC,
)
SERVICE_REVERSE_MAP = MapSpec(
    "service_reverse",
    MapKind.HASH,
    np.dtype("<u4"),
    BACKEND_ENTRY,
    65_536,
    "Service to the address and port that its replies bear.",
    MapFlag.NO_PREALLOC,
)
SERVICE_FLOWS_MAP = MapSpec(
    "service_flows",
    MapKind.HASH,
    CONNTRACK_KEY,
    SERVICE_FLOW_ENTRY,
    262_144,
    "Tuple as its client sends it (a: client, b: service) of an answered flow to its translation.",
    MapFlag.NO_PREALLOC,
    Writer.PROGRAM,
)
SERVICE_NEW_MAP = MapSpec(
    "service_new",
    MapKind.LRU_HASH,
    CONNTRACK_KEY,
    SERVICE_FLOW_ENTRY,
    65_536,
    "The same of a flow that nobody has answered yet.",
    writer=Writer.PROGRAM,
)
