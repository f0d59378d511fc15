"""Ports of policies: protocols, ICMP types, TLS, names of servers, listeners, and rules for L7."""

from __future__ import annotations

from ciliate_kubernetes.crds.schema import (
    SET,
    Schema,
    array,
    fields,
    int_or_string,
    integer,
    mapping,
    one_filled_at_most,
    string,
)

PORTS_MOST = 40
NAME_MOST = 255
PROTOCOLS = ("TCP", "UDP", "SCTP", "VRRP", "IGMP", "GRE", "IPIP", "IPV6", "ESP", "AH", "ANY")
_NUMBER = r"(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[0-9]{1,4})"
_PREFIXED = r"0[xX][0-9a-fA-F]{1,4}|0[bB][01]{1,16}|0[oO]?[0-7]{1,6}"
_NAME = r"([a-zA-Z0-9]-?)*[a-zA-Z](-?[a-zA-Z0-9])*"
PORT = string(f"^({_NUMBER}|{_PREFIXED}|{_NAME})$")
ICMP_NAMES = (
    "EchoReply", "DestinationUnreachable", "Redirect", "Echo", "EchoRequest", "RouterAdvertisement", "RouterSelection",
    "TimeExceeded", "ParameterProblem", "Timestamp", "TimestampReply", "Photuris", "ExtendedEchoRequest",
    "ExtendedEchoReply", "PacketTooBig", "MulticastListenerQuery", "MulticastListenerReport", "MulticastListenerDone",
    "RouterSolicitation", "NeighborSolicitation", "NeighborAdvertisement", "RedirectMessage", "RouterRenumbering",
    "ICMPNodeInformationQuery", "ICMPNodeInformationResponse", "InverseNeighborDiscoverySolicitation",
    "InverseNeighborDiscoveryAdvertisement", "HomeAgentAddressDiscoveryRequest", "HomeAgentAddressDiscoveryReply",
    "MobilePrefixSolicitation", "MobilePrefixAdvertisement", "DuplicateAddressRequestCodeSuffix",
    "DuplicateAddressConfirmationCodeSuffix",
)  # fmt: skip


def icmp_rule() -> Schema:
    """An element of icmps: types by number or name. Which names a family has, the operator says."""
    numbers = r"25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9]|0[xX][0-9a-fA-F]{1,2}|0[bB][01]{1,8}|0[oO]?[0-7]{1,4}"
    type_ = int_or_string(minimum=0, maximum=255, pattern=f"^({numbers}|{'|'.join(ICMP_NAMES)})$")
    field = fields({"family": string(one_of=("IPv4", "IPv6")), "type": type_}, required=("type",))
    return fields({"fields": array(field, most=PORTS_MOST)})


def name_match() -> Schema:
    """Names of the DNS: one, or those that a pattern matches."""
    return fields(
        {
            "matchName": string(r"^([-a-zA-Z0-9_]+[.]?)+$", most=NAME_MOST),
            "matchPattern": string(r"^([-a-zA-Z0-9_*]+[.]?)+$", most=NAME_MOST),
        }
    )


def port_rule(direction: str, deny: bool) -> Schema:
    """An element of toPorts."""
    port = fields(
        {
            "port": PORT,
            "endPort": integer(least=0, most=65535, format="int32"),
            "protocol": string(one_of=PROTOCOLS),
        }
    )
    ports = {"ports": array(port, most=PORTS_MOST)}
    if deny:
        return fields(ports)
    return fields(
        {
            **ports,
            "terminatingTLS": _tls(),
            "originatingTLS": _tls(),
            "serverNames": array(string(minLength=1), least=1, **SET),
            "listener": _listener(),
            "rules": l7_rules(),
        }
    )


def secret() -> Schema:
    """Which Secret."""
    return fields({"namespace": string(), "name": string()}, required=("name",))


def _tls() -> Schema:
    keys = {"trustedCA": string(), "certificate": string(), "privateKey": string()}
    return fields({"secret": secret(), **keys}, required=("secret",))


def _listener() -> Schema:
    kinds = ("CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig")
    config = fields({"kind": string(one_of=kinds), "name": string(minLength=1)}, required=("name",))
    return fields(
        {"envoyConfig": config, "name": string(minLength=1), "priority": integer(least=1, most=100)},
        required=("envoyConfig", "name"),
    )


def l7_rules() -> Schema:
    """The rules of one protocol; `kafka`, `l7proto` and `l7` are of Cilium before 1.20."""
    return fields(
        {
            "http": array(_http()),
            "dns": array(name_match()),
            "kafka": array(_kafka()),
            "l7proto": string(),
            "l7": array(mapping(string())),
        },
        **one_filled_at_most(("http", "dns", "kafka")),
    )


def _http() -> Schema:
    match = fields(
        {
            "name": string(minLength=1),
            "value": string(),
            "secret": secret(),
            "mismatch": string(one_of=("LOG", "ADD", "DELETE", "REPLACE")),
        },
        required=("name",),
    )
    return fields(
        {
            "path": string(),
            "method": string(),
            "host": string(),
            "headers": array(string()),
            "headerMatches": array(match),
        }
    )


def _kafka() -> Schema:
    return fields(
        {
            "role": string(one_of=("produce", "consume")),
            "apiKey": string(),
            "apiVersion": string(),
            "clientID": string(),
            "topic": string(most=255),
        }
    )
