"""flow.Flow.Summary of layers 3 and 4: what the CLI prints in parentheses."""

from __future__ import annotations

TCP, UDP, ICMP, ICMPV6, SCTP, VRRP, IGMP = 6, 17, 1, 58, 132, 112, 2

FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
"""By bit, lowest first: also the field numbers of flow.TCPFlags, from 1."""
_SHOWN = ("SYN", "ACK", "RST", "FIN", "PSH", "URG", "ECE", "CWR")
_BITS = {name: 1 << bit for bit, name in enumerate(FLAGS)}

_ICMP_CODES = {
    3: "Net Host Protocol Port FragmentationNeeded SourceRoutingFailed NetUnknown HostUnknown SourceIsolated"
    " NetAdminProhibited HostAdminProhibited NetTOS HostTOS CommAdminProhibited HostPrecedence PrecedenceCutoff",
    5: "Net Host TOS+Net TOS+Host",
    11: "TTLExceeded FragmentReassemblyTimeExceeded",
    12: "PointerIndicatesError MissingOption BadLength",
}
_ICMP_NAMES = {
    0: "EchoReply", 3: "DestinationUnreachable", 4: "SourceQuench", 5: "Redirect", 8: "EchoRequest",
    9: "RouterAdvertisement", 10: "RouterSolicitation", 11: "TimeExceeded", 12: "ParameterProblem",
    13: "TimestampRequest", 14: "TimestampReply", 15: "InfoRequest", 16: "InfoReply", 17: "AddressMaskRequest",
    18: "AddressMaskReply",
}  # fmt: skip
_ICMPV6_CODES = {
    1: "NoRouteToDst AdminProhibited BeyondScopeOfSrc AddressUnreachable PortUnreachable SrcAddressFailedPolicy"
    " RejectRouteToDst",
    3: "HopLimitExceeded FragmentReassemblyTimeExceeded",
    4: "ErroneousHeader UnrecognizedNextHeader UnrecognizedIPv6Option",
}
_ICMPV6_NAMES = {
    1: "DestinationUnreachable", 2: "PacketTooBig", 3: "TimeExceeded", 4: "ParameterProblem", 128: "EchoRequest",
    129: "EchoReply", 130: "MLDv1MulticastListenerQueryMessage", 131: "MLDv1MulticastListenerReportMessage",
    132: "MLDv1MulticastListenerDoneMessage", 133: "RouterSolicitation", 134: "RouterAdvertisement",
    135: "NeighborSolicitation", 136: "NeighborAdvertisement", 137: "Redirect",
    143: "MLDv2MulticastListenerReportMessageV2",
}  # fmt: skip


def summary(protocol: int, flags: int, kind: int, code: int) -> str:
    """Of a packet. kind, code: of an ICMP message; empty for a protocol that has no summary."""
    if protocol == TCP:
        return "TCP Flags: " + ", ".join(name for name in _SHOWN if flags & _BITS[name])
    if protocol == UDP:
        return "UDP"
    if protocol == SCTP:
        return "SCTP"
    if protocol == ICMP:
        return f"ICMPv4 {_icmp(kind, code, _ICMP_NAMES, _ICMP_CODES)}"
    if protocol == ICMPV6:
        return f"ICMPv6 {_icmp(kind, code, _ICMPV6_NAMES, _ICMPV6_CODES)}"
    return ""


def _icmp(kind: int, code: int, names: dict[int, str], codes: dict[int, str]) -> str:
    """Type and code as gopacket, and so Cilium, spells them."""
    name = names.get(kind)
    if name is None:
        return f"{kind}({code})"
    if kind not in codes:
        return name if not code else f"{name}(Code: {code})"
    known = codes[kind].split()
    return f"{name}({known[code]})" if code < len(known) else f"{name}(Code: {code})"
