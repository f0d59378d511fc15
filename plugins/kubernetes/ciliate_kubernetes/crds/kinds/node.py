"""CiliumNode, with what the clouds' modes of IPAM keep there, and CiliumNodeConfig."""

from __future__ import annotations

from ciliate_kubernetes.crds.definition import AGE, Column, Definition, Version
from ciliate_kubernetes.crds.kinds import clouds
from ciliate_kubernetes.crds.schema import (
    Schema,
    array,
    fields,
    integer,
    label_selector,
    mapping,
    string,
)

ADDRESS_TYPES = ("Hostname", "InternalIP", "ExternalIP", "InternalDNS", "ExternalDNS", "CiliumInternalIP")


def _addresses() -> Schema:
    """Address to whom it belongs."""
    return mapping(fields({"owner": string(), "resource": string()}))


def _families() -> Schema:
    return fields({"ipv4": string(), "ipv6": string()})


def _pools() -> Schema:
    needed = fields({"ipv4-addrs": integer(least=0), "ipv6-addrs": integer(least=0)})
    requested = fields({"pool": string(minLength=1), "needed": needed}, required=("pool",))
    bounds = {"allowFirstIP": clouds.YES_NO, "allowLastIP": clouds.YES_NO}
    allocated = fields({"pool": string(minLength=1), "cidrs": array(string()), **bounds}, required=("pool",))
    return fields({"requested": array(requested), "allocated": array(allocated)})


def _spec() -> Schema:
    ipam = fields(
        {
            "pool": _addresses(),
            "ipv6-pool": _addresses(),
            "podCIDRs": array(string()),
            "pools": _pools(),
            "min-allocate": integer(least=0),
            "max-allocate": integer(least=0),
            "pre-allocate": integer(least=0),
            "max-above-watermark": integer(least=0),
            "static-ip-tags": mapping(string()),
        }
    )
    return fields(
        {
            "instance-id": string(),
            "bootid": string(),
            "addresses": array(fields({"type": string(), "ip": string()})),
            "health": _families(),
            "ingress": _families(),
            "encryption": fields({"key": integer()}),
            "eni": clouds.eni_spec(),
            "azure": clouds.azure_spec(),
            "alibaba-cloud": clouds.alibaba_spec(),
            "ipam": ipam,
            "nodeidentity": integer(),
        }
    )


def _status() -> Schema:
    states = ("marked-for-release", "ready-for-release", "do-not-release", "released")
    ipam = fields(
        {
            "used": _addresses(),
            "ipv6-used": _addresses(),
            "pod-cidrs": mapping(fields({"status": string(one_of=("released", "depleted", "in-use"))})),
            "operator-status": fields({"error": string()}),
            "release-ips": mapping(string(one_of=states)),
            "release-ipv6s": mapping(string(one_of=states)),
            "assigned-static-ip": string(),
        }
    )
    clouds_ = {
        "eni": clouds.eni_status(),
        "azure": clouds.azure_status(),
        "alibaba-cloud": clouds.alibaba_status(),
    }
    return fields({"ipam": ipam, **clouds_})


_COLUMNS = (
    Column("CiliumInternalIP", '.spec.addresses[?(@.type=="CiliumInternalIP")].ip'),
    Column("InternalIP", '.spec.addresses[?(@.type=="InternalIP")].ip'),
    AGE,
)
_CONFIG = {
    "spec": fields(
        {"nodeSelector": label_selector(), "defaults": mapping(string())}, required=("defaults", "nodeSelector")
    )
}

DEFINITIONS = (
    Definition(
        "CiliumNode",
        "ciliumnodes",
        ("cn", "ciliumn"),
        False,
        (Version("v2", {"spec": _spec(), "status": _status()}, columns=_COLUMNS),),
    ),
    Definition(
        "CiliumNodeConfig",
        "ciliumnodeconfigs",
        (),
        True,
        (
            Version("v2", _CONFIG, ("spec",)),
            Version("v2alpha1", _CONFIG, ("spec",), stored=False, deprecated=True),
        ),
        has_status=False,
    ),
)
