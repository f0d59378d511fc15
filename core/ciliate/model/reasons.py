"""Drop reasons: Cilium's numbers and texts where the meaning is the same, ours from 240.

bpf/include/ciliate/reasons.h is generated from this list (`make bpf`), so the two cannot drift.
"""

from __future__ import annotations

import enum


class DropReason(enum.IntEnum):
    """Why a packet was dropped. `text` is what monitor output, Hubble and the metric's label show."""

    INVALID_SOURCE_MAC = 130, "Invalid source mac"
    INVALID_SOURCE_IP = 132, "Invalid source ip"
    POLICY_DENIED = 133, "Policy denied"
    INVALID_PACKET = 134, "Invalid packet"
    CT_INVALID_HEADER = 135, "CT: Truncated or invalid header"
    CT_UNKNOWN_L4_PROTOCOL = 137, "CT: Unknown L4 protocol"
    UNSUPPORTED_L3_PROTOCOL = 139, "Unsupported L3 protocol"
    MISSED_TAIL_CALL = 140, "Missed tail call"
    WRITE_ERROR = 141, "Error writing to packet"
    UNKNOWN_ICMPV4_TYPE = 144, "Unknown ICMPv4 type"
    UNKNOWN_ICMPV6_TYPE = 146, "Unknown ICMPv6 type"
    UNKNOWN_L3_TARGET_ADDRESS = 150, "Unknown L3 target address"
    STALE_OR_UNROUTABLE_IP = 151, "Stale or unroutable IP"
    CHECKSUM_L3 = 153, "Error while correcting L3 checksum"
    CHECKSUM_L4 = 154, "Error while correcting L4 checksum"
    CT_INSERTION_FAILED = 155, "CT: Map insertion failed"
    INVALID_IPV6_EXTENSION_HEADER = 156, "Invalid IPv6 extension header"
    FRAGMENTATION_NOT_SUPPORTED = 157, "IP fragmentation not supported"
    SERVICE_BACKEND_NOT_FOUND = 158, "Service backend not found"
    UNSUPPORTED_L2_PROTOCOL = 166, "Unsupported L2 protocol"
    NO_NAT_MAPPING = 167, "No mapping for NAT masquerade"
    FIB_LOOKUP_FAILED = 169, "FIB lookup failed"
    FRAGMENT_NOT_FOUND = 175, "First logical datagram fragment not found"
    FORBIDDEN_ICMPV6_MESSAGE = 176, "Forbidden ICMPv6 message"
    PROXY_NOT_SUPPORTED = 180, "Proxy redirection not supported for protocol"
    POLICY_DENY = 181, "Policy denied by denylist"
    AUTH_REQUIRED = 189, "Authentication required"
    ENDPOINT_NOT_READY = 203, "Endpoint policy program not available"
    UNRESOLVED_ADDRESS = 240, "Address in a pod range has no known identity yet"
    CONNTRACK_FULL = 241, "Conntrack table is full"
    TUPLE_CLASH = 242, "No free source port for the translated tuple"
    UNKNOWN_ENDPOINT = 243, "Interface belongs to no endpoint"
    PLUGIN = 244, "Dropped by a plugin's program"
    CONNTRACK_LIMIT = 245, "Too many flows of one endpoint"

    text: str

    def __new__(cls, number: int, text: str) -> DropReason:
        """A member is a number with its text."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.text = text
        return member


def reason_text(number: int) -> str:
    """The text of a reason; 0 is `Success`, an unknown one is rendered as its number."""
    if number == 0:
        return "Success"
    try:
        return DropReason(number).text  # type: ignore[call-arg]  # __new__ takes what _missing_ and lookup do not
    except ValueError:
        return str(number)
