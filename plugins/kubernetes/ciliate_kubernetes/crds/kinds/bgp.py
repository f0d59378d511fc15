"""The kinds of BGP: what a cluster wants, peers' settings, advertisements, and what each node gets and says."""

from __future__ import annotations

from ciliate_kubernetes.crds.definition import Definition, Version
from ciliate_kubernetes.crds.schema import (
    SET,
    Schema,
    array,
    boolean,
    conditions,
    fields,
    integer,
    label_selector,
    string,
)

NAME = string(minLength=1, maxLength=255)
ASN = integer(least=1, most=4294967295, format="int64")
PEER_ASN = integer(least=0, most=4294967295, format="int64", default=0)
PORT = integer(least=1, most=65535, format="int32")
ADDRESS = string(anyOf=[{"format": "ipv4"}, {"format": "ipv6"}])
AFI = string(one_of=("ipv4", "ipv6", "l2vpn", "ls", "opaque"))
SAFI = string(
    one_of=(
        "unicast", "multicast", "mpls_label", "encapsulation", "vpls", "evpn", "ls", "sr_policy", "mup", "mpls_vpn",
        "mpls_vpn_multicast", "route_target_constraints", "flowspec_unicast", "flowspec_vpn", "key_value",
    ),
)  # fmt: skip
WELL_KNOWN = (
    "internet", "planned-shut", "accept-own", "route-filter-translated-v4", "route-filter-v4",
    "route-filter-translated-v6", "route-filter-v6", "llgr-stale", "no-llgr", "blackhole", "no-export",
    "no-advertise", "no-export-subconfed", "no-peer",
)  # fmt: skip


def _named(list_: Schema, most: int = 0) -> Schema:
    keys = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    return {**list_, **keys, **({"maxItems": most} if most else {})}


def _cluster_config() -> Schema:
    discovery = fields(
        {
            "mode": string(one_of=("DefaultGateway",)),
            "defaultGateway": fields({"addressFamily": string(one_of=("ipv4", "ipv6"))}, required=("addressFamily",)),
        },
        required=("mode",),
    )
    peer = fields(
        {
            "name": NAME,
            "peerAddress": ADDRESS,
            "peerASN": PEER_ASN,
            "autoDiscovery": discovery,
            "peerConfigRef": fields({"name": string(), "group": string(), "kind": string()}, required=("name",)),
        },
        required=("name",),
    )
    instance = fields(
        {"name": NAME, "localASN": ASN, "localPort": PORT, "peers": _named(array(peer))}, required=("name",)
    )
    instances = _named(array(instance, least=1), most=16)
    return fields({"nodeSelector": label_selector(), "bgpInstances": instances}, required=("bgpInstances",))


def _peer_config() -> Schema:
    family = fields({"afi": AFI, "safi": SAFI, "advertisements": label_selector()}, required=("afi", "safi"))
    restart = fields(
        {"enabled": boolean(), "restartTimeSeconds": integer(least=1, most=4095, format="int32", default=120)},
        required=("enabled",),
    )
    timers = fields(
        {
            "connectRetryTimeSeconds": integer(least=1, most=2147483647, format="int32", default=120),
            "holdTimeSeconds": integer(least=3, most=65535, format="int32", default=90),
            "keepAliveTimeSeconds": integer(least=1, most=65535, format="int32", default=30),
        }
    )
    transport = fields({"peerPort": {**PORT, "default": 179}, "sourceInterface": string()})
    return fields(
        {
            "transport": transport,
            "timers": timers,
            "authSecretRef": string(),
            "gracefulRestart": restart,
            "ebgpMultihop": integer(least=1, most=255, format="int32", default=1),
            "families": array(family),
        }
    )


def _advertisements() -> Schema:
    communities = fields(
        {
            "standard": array(string(), **SET),
            "wellKnown": array(string(one_of=WELL_KNOWN), **SET),
            "large": array(string(), **SET),
        }
    )
    attributes = fields(
        {"communities": communities, "localPreference": integer(least=0, most=4294967295, format="int64")}
    )
    service = fields(
        {
            "addresses": array(string(one_of=("LoadBalancerIP", "ClusterIP", "ExternalIP")), least=1),
            "aggregationLengthIPv4": integer(least=0, most=31),
            "aggregationLengthIPv6": integer(least=0, most=127),
        },
        required=("addresses",),
    )
    one = fields(
        {
            "advertisementType": string(one_of=("PodCIDR", "CiliumPodIPPool", "Service", "Interface")),
            "service": service,
            "interface": fields({"name": string()}, required=("name",)),
            "selector": label_selector(),
            "attributes": attributes,
        },
        required=("advertisementType",),
    )
    return fields({"advertisements": array(one, least=1)}, required=("advertisements",))


def _node_config() -> Schema:
    peer = fields(
        {
            "name": string(),
            "peerAddress": ADDRESS,
            "peerASN": PEER_ASN,
            "localAddress": ADDRESS,
            "autoDiscovery": fields(
                {"mode": string(), "defaultGateway": fields({"addressFamily": string()})}, required=("mode",)
            ),
            "peerConfigRef": fields({"name": string(), "group": string(), "kind": string()}, required=("name",)),
        },
        required=("name",),
    )
    instance = fields(
        {"name": NAME, "localASN": ASN, "localPort": PORT, "routerID": string(), "peers": _named(array(peer))},
        required=("name",),
    )
    return fields({"bgpInstances": _named(array(instance, least=1), most=16)}, required=("bgpInstances",))


def _node_status() -> Schema:
    count = fields({"afi": string(), "safi": string(), "received": integer(), "advertised": integer()})
    timers = fields({"appliedHoldTimeSeconds": integer(), "appliedKeepaliveSeconds": integer()})
    peer = fields(
        {
            "name": string(),
            "peerAddress": string(),
            "peerASN": integer(format="int64"),
            "peeringState": string(),
            "timers": timers,
            "establishedTime": string(),
            "routeCount": array(count),
        },
        required=("name",),
    )
    instance = fields(
        {"name": string(), "localASN": integer(format="int64"), "peers": _named(array(peer))}, required=("name",)
    )
    return fields({"bgpInstances": _named(array(instance)), "conditions": conditions()})


def _override() -> Schema:
    peer = fields({"name": NAME, "localAddress": ADDRESS, "localPort": PORT}, required=("name",))
    instance = fields(
        {
            "name": NAME,
            "routerID": string(format="ipv4"),
            "localPort": PORT,
            "localASN": ASN,
            "peers": _named(array(peer)),
        },
        required=("name",),
    )
    return fields({"bgpInstances": _named(array(instance, least=1))}, required=("bgpInstances",))


def _definition(kind: str, plural: str, short: str, schema: dict[str, Schema], has_status: bool = True) -> Definition:
    versions = (
        Version("v2", schema, ("spec",)),
        Version("v2alpha1", schema, ("spec",), stored=False, deprecated=True),
    )
    return Definition(kind, plural, (short,), False, versions, ("cilium", "ciliumbgp"), has_status)


_CONDITIONS = fields({"conditions": conditions()})
DEFINITIONS = (
    _definition(
        "CiliumBGPClusterConfig", "ciliumbgpclusterconfigs", "cbgpcluster",
        {"spec": _cluster_config(), "status": _CONDITIONS},
    ),
    _definition(
        "CiliumBGPPeerConfig", "ciliumbgppeerconfigs", "cbgppeer", {"spec": _peer_config(), "status": _CONDITIONS}
    ),
    _definition(
        "CiliumBGPAdvertisement", "ciliumbgpadvertisements", "cbgpadvert", {"spec": _advertisements()}, False
    ),
    _definition(
        "CiliumBGPNodeConfig", "ciliumbgpnodeconfigs", "cbgpnode", {"spec": _node_config(), "status": _node_status()}
    ),
    _definition(
        "CiliumBGPNodeConfigOverride", "ciliumbgpnodeconfigoverrides", "cbgpnodeoverride", {"spec": _override()}, False
    ),
)  # fmt: skip
