"""Ports, protocols and ICMP types of manifests; port ranges as masked prefixes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ciliate_policy.rules import ICMP, ICMPV6, PORT_MAX, PROTOCOLS, PortMatch
from ciliate_policy.validation import Node

ICMP_TYPES = {
    "EchoReply": 0, "DestinationUnreachable": 3, "Redirect": 5, "Echo": 8, "EchoRequest": 8, "RouterAdvertisement": 9,
    "RouterSelection": 10, "TimeExceeded": 11, "ParameterProblem": 12, "Timestamp": 13, "TimestampReply": 14,
    "Photuris": 40, "ExtendedEchoRequest": 42, "ExtendedEchoReply": 43,
}  # fmt: skip
ICMPV6_TYPES = {
    "DestinationUnreachable": 1, "PacketTooBig": 2, "TimeExceeded": 3, "ParameterProblem": 4, "EchoRequest": 128,
    "EchoReply": 129, "MulticastListenerQuery": 130, "MulticastListenerReport": 131, "MulticastListenerDone": 132,
    "RouterSolicitation": 133, "RouterAdvertisement": 134, "NeighborSolicitation": 135, "NeighborAdvertisement": 136,
    "RedirectMessage": 137, "RouterRenumbering": 138, "ICMPNodeInformationQuery": 139,
    "ICMPNodeInformationResponse": 140, "InverseNeighborDiscoverySolicitation": 141,
    "InverseNeighborDiscoveryAdvertisement": 142, "HomeAgentAddressDiscoveryRequest": 144,
    "HomeAgentAddressDiscoveryReply": 145, "MobilePrefixSolicitation": 146, "MobilePrefixAdvertisement": 147,
    "DuplicateAddressRequestCodeSuffix": 157, "DuplicateAddressConfirmationCodeSuffix": 158,
    "ExtendedEchoRequest": 160, "ExtendedEchoReply": 161,
}  # fmt: skip
FIELDS_MAX = 40

_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9]*(-[a-z0-9]+)*)$")


def port_number(node: Node) -> int | None:
    """The number that a Cilium port names, base prefixes understood; None if it is a service name."""
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        check_port(node, node.value)
        node.refuse(f'must be a string: write "{node.value}"')
    text = node.text()
    number = _number(text)
    if number is not None:
        check_port(node, number)
    elif not is_port_name(text.lower()):
        node.refuse(f"{text!r} is neither a number from 0 to {PORT_MAX} nor a service name")
    return number


def check_port(node: Node, number: int) -> None:
    """Refuse what no port number can be."""
    if number > PORT_MAX:
        node.refuse(f"{number} is over {PORT_MAX}; ports are 0 to {PORT_MAX}")
    if number < 0:
        node.refuse(f"{number} is negative; ports are 0 to {PORT_MAX}")


def is_port_name(text: str) -> bool:
    """Whether a text can be a service name: up to 15 letters, digits and single dashes, with at least one letter."""
    return len(text) <= 15 and _PORT_NAME.match(text) is not None


def end_port(node: Node, first: int | None) -> int:
    """The last port of a range that begins at `first`."""
    last = node.integer()
    if first is None:
        node.refuse("needs a numeric port; a named port has no range")
    check_port(node, last)
    if last < first:
        node.refuse(f"{last} is below the port {first}; a range ends where it begins or after")
    return last


def expand(protocol: str, first: int, last: int, name: str = "") -> tuple[PortMatch, ...]:
    """Matches of a protocol's name; ANY is TCP, UDP and SCTP, unless all ports are meant: then every protocol."""
    if protocol != "ANY":
        return (PortMatch(PROTOCOLS[protocol], first, last, name),)
    if (first, last, name) == (0, PORT_MAX, ""):
        return (PortMatch(),)
    return tuple(PortMatch(number, first, last, name) for number in PROTOCOLS.values())


def icmp_fields(node: Node) -> list[PortMatch]:
    """One ICMPRule of a manifest: {fields: [{family, type}]}."""
    fields = node.fields({"fields"})
    return fields["fields"].each(_icmp_field, FIELDS_MAX) if "fields" in fields else []


def _icmp_field(node: Node) -> PortMatch:
    fields = node.fields({"family", "type"})
    family = fields["family"].choice({"IPv4", "IPv6"}) if "family" in fields else "IPv4"
    if "type" not in fields:
        node.refuse("has no type; give a number from 0 to 255 or a name")
    names = ICMP_TYPES if family == "IPv4" else ICMPV6_TYPES
    number = _icmp_type(fields["type"], names, family)
    return PortMatch(ICMP if family == "IPv4" else ICMPV6, number, number)


def _icmp_type(node: Node, names: dict[str, int], family: str) -> int:
    value = node.value
    if isinstance(value, str) and value in names:
        return names[value]
    number = _number(value) if isinstance(value, str) else node.integer()
    if number is None:
        node.refuse(
            f"{value!r} is not a type of {family} ICMP; give a number from 0 to 255 or one of {', '.join(names)}"
        )
    if not 0 <= number <= 255:
        node.refuse(f"{number} is not from 0 to 255")
    return number


def _number(text: str) -> int | None:
    """Decimal, or with the base prefix 0x, 0o, 0b or 0."""
    try:
        if re.fullmatch(r"0[0-7]+", text):
            return int(text, 8)
        return int(text, 0) if re.fullmatch(r"-?[0-9][0-9a-fA-FxXoObB]*", text) else None
    except ValueError:
        return None


def range_prefixes(first: int, last: int) -> Iterator[tuple[int, int]]:
    """(port, prefix length) of the fewest masked prefixes that cover a range: 80 to 84 is 80/14 and 84/16."""
    while first <= last:
        size = first & -first or PORT_MAX + 1
        while first + size - 1 > last:
            size >>= 1
        yield first, 17 - size.bit_length()
        first += size
