"""Endpoints: the pods of this node, as the data path and the other plugins see them.

Tables: `endpoints` (written by cni, durable), `endpoint_policies` (written by policy: what is realised in the kernel).
Maps: `endpoints` (array by endpoint id), `endpoint_ips` (address to id), both of cni; `endpoint_policy` (array by id,
mmapable) and `endpoint_stamps`, `peer_stamps` (mmapable counters), of policy.
"""

from __future__ import annotations

import numpy as np

from ciliate.maps.spec import MapFlag, MapKind, MapSpec
from ciliate.model.base import Row
from ciliate.model.policy import Direction
from ciliate.tables.spec import Durability, TableSpec

IFINDEX_BASE = 0x10000
"""The host end of an endpoint's veth has the interface index IFINDEX_BASE + endpoint id: no lookup is needed."""

ENDPOINTS_MAX = 16384
"""Endpoint ids are 1 to ENDPOINTS_MAX - 1; 0 is "no local endpoint" and its stamp stays 0."""

PEER_STAMPS = 65536


class NamedPort(Row, frozen=True):
    """A container port with a name: what a policy's named port means on this endpoint."""

    name: str
    port: int
    protocol: str  # TCP, UDP, SCTP


class Endpoint(Row, frozen=True):
    """A pod of this node. Key: id."""

    id: int
    generation: int  # grows each time that the id is given out anew
    container_id: str
    interface: str  # CNI_IFNAME, in the pod
    netns: str
    namespace: str
    pod: str
    pod_uid: str = ""
    host_interface: str = ""  # lxc<hash>; its index is IFINDEX_BASE + id
    ipv4: str | None = None
    ipv6: str | None = None
    mac: str = ""  # of the pod's end
    host_mac: str = ""  # of the host's end: what the pod takes for its gateway
    labels: tuple[str, ...] = ()  # source:key=value, all of them, sorted; empty until the pod is known: reserved:init
    named_ports: tuple[NamedPort, ...] = ()
    mtu: int = 1500
    network: str = ""  # name of the CNI network configuration that it was made by: what a GC speaks of
    disconnecting: bool = False


class EndpointPolicy(Row, frozen=True):
    """What policy has realised in the kernel for an endpoint. Key: id."""

    id: int
    generation: int
    identity: int
    ingress_policy: int  # policy ids, the first part of the `policy` map's key
    egress_policy: int
    revision: int  # of the rules: the highest that is in the kernel for this endpoint
    ingress_enforcing: bool = False
    egress_enforcing: bool = False
    ingress_default: int = 0  # rule set of what switched default deny on: names a denial without a policy-map entry
    egress_default: int = 0  # 0: not enforced, so nothing is denied by default

    def default_rule_set(self, direction: Direction) -> int:
        """The rule set behind a packet that is dropped because nothing allows it; 0 if that can't be."""
        return self.ingress_default if direction is Direction.INGRESS else self.egress_default


ENDPOINTS = TableSpec("endpoints", Endpoint, key=("id",), durability=Durability.COMMIT, doc="The pods of this node.")
ENDPOINT_POLICIES = TableSpec(
    "endpoint_policies", EndpointPolicy, key=("id",), durability=Durability.SECOND, doc="What is realised for each pod."
)

ENDPOINT_ENTRY = np.dtype(
    [
        ("ifindex", "<u4"),
        ("generation", "<u4"),
        ("ipv4", "u1", 16),  # as ::ffff:a.b.c.d; zeros: none
        ("ipv6", "u1", 16),
        ("mac", "u1", 6),  # the pod's
        ("host_mac", "u1", 6),
        ("flags", "<u4"),
    ]
)
ENDPOINT_VALID = 1 << 0
"""ENDPOINT_ENTRY.flags: the slot is in use."""

ENDPOINT_POLICY_ENTRY = np.dtype([("identity", "<u4"), ("ingress", "<u4"), ("egress", "<u4"), ("flags", "<u4")])
POLICY_NOT_READY = 0
"""A policy id of 0 means that nothing has been decided yet: dropped, reason 203."""
POLICY_AUDIT = 1 << 0
"""ENDPOINT_POLICY_ENTRY.flags: denied is let pass and reported as audited."""

_INDEX = np.dtype("<u4")

ENDPOINTS_MAP = MapSpec(
    "endpoints", MapKind.ARRAY, _INDEX, ENDPOINT_ENTRY, ENDPOINTS_MAX, "Endpoint id to endpoint.", MapFlag.MMAPABLE
)
ENDPOINT_IPS_MAP = MapSpec(
    "endpoint_ips",
    MapKind.HASH,
    np.dtype([("address", "u1", 16)]),
    np.dtype("<u4"),
    2 * ENDPOINTS_MAX,
    "Address of a local endpoint to its id.",
    MapFlag.NO_PREALLOC,
)
ENDPOINT_POLICY_MAP = MapSpec(
    "endpoint_policy",
    MapKind.ARRAY,
    _INDEX,
    ENDPOINT_POLICY_ENTRY,
    ENDPOINTS_MAX,
    "Endpoint id to identity and policy ids.",
    MapFlag.MMAPABLE,
)
ENDPOINT_STAMPS_MAP = MapSpec(
    "endpoint_stamps",
    MapKind.ARRAY,
    _INDEX,
    np.dtype("<u4"),
    ENDPOINTS_MAX,
    "Endpoint id to the counter that is bumped when a verdict of its own policy changes.",
    MapFlag.MMAPABLE,
)
PEER_STAMPS_MAP = MapSpec(
    "peer_stamps",
    MapKind.ARRAY,
    _INDEX,
    np.dtype("<u4"),
    PEER_STAMPS,
    "Hash of a peer's address to the counter that is bumped when its identity changes.",
    MapFlag.MMAPABLE,
)


def peer_slot(packed: bytes) -> int:
    """The slot of `peer_stamps` of a packed address: the twin of `peer_slot` in bpf/include/ciliate/stamps.h.

    The four 32-bit little-endian words are xored, multiplied by 0x9E3779B1 modulo 2**32; the upper 16 bits.
    """
    words = np.frombuffer(packed, "<u4")
    mixed = int(words[0]) ^ int(words[1]) ^ int(words[2]) ^ int(words[3])
    return ((mixed * 0x9E3779B1) & 0xFFFFFFFF) >> 16
