"""The schemas against what Cilium has: tables of fields and names, written down from its documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from ciliate.model.kinds import KINDS
from ciliate_kubernetes.crds.definition import GROUP, Definition, definition_object
from ciliate_kubernetes.crds.kinds import DEFINITIONS
from ciliate_policy import cnp, ports

BY_KIND = {definition.kind: definition for definition in DEFINITIONS}

SELECTOR = {
    "matchLabels": "object",
    "matchExpressions[]": {"key": "string", "operator": "string", "values[]": "string"},
}
CIDR_RULE = {"cidr": "string", "cidrGroupRef": "string", "cidrGroupSelector": SELECTOR, "except[]": "string"}
GROUPS = {
    "aws": {
        "labels": "object", "securityGroupsIds[]": "string", "securityGroupsNames[]": "string", "region": "string",
    },
}  # fmt: skip
NAME_MATCH = {"matchName": "string", "matchPattern": "string"}
SECRET = {"namespace": "string", "name": "string"}
TLS = {"secret": SECRET, "trustedCA": "string", "certificate": "string", "privateKey": "string"}
HTTP = {
    "path": "string",
    "method": "string",
    "host": "string",
    "headers[]": "string",
    "headerMatches[]": {"name": "string", "value": "string", "secret": SECRET, "mismatch": "string"},
}
KAFKA = {"role": "string", "apiKey": "string", "apiVersion": "string", "clientID": "string", "topic": "string"}
L7 = {"http[]": HTTP, "dns[]": NAME_MATCH, "kafka[]": KAFKA, "l7proto": "string", "l7[]": "object"}
PORT = {"port": "string", "endPort": "integer", "protocol": "string"}
PORT_RULE = {
    "ports[]": PORT,
    "terminatingTLS": TLS,
    "originatingTLS": TLS,
    "serverNames[]": "string",
    "listener": {"envoyConfig": {"kind": "string", "name": "string"}, "name": "string", "priority": "integer"},
    "rules": L7,
}
ICMP = {"fields[]": {"family": "string", "type": "int-or-string"}}
SERVICE = {
    "k8sService": {"serviceName": "string", "namespace": "string"},
    "k8sServiceSelector": {"selector": SELECTOR, "namespace": "string"},
}
INGRESS_DENY = {
    "fromEndpoints[]": SELECTOR, "fromCIDR[]": "string", "fromCIDRSet[]": CIDR_RULE, "fromEntities[]": "string",
    "fromGroups[]": GROUPS, "fromNodes[]": SELECTOR, "fromRequires[]": SELECTOR, "toPorts[]": {"ports[]": PORT},
    "icmps[]": ICMP,
}  # fmt: skip
EGRESS_DENY = {
    "toEndpoints[]": SELECTOR, "toCIDR[]": "string", "toCIDRSet[]": CIDR_RULE, "toEntities[]": "string",
    "toServices[]": SERVICE, "toGroups[]": GROUPS, "toNodes[]": SELECTOR, "toRequires[]": SELECTOR,
    "toPorts[]": {"ports[]": PORT}, "icmps[]": ICMP,
}  # fmt: skip
ALLOW = {"toPorts[]": PORT_RULE, "authentication": {"mode": "string"}}
RULE = {
    "endpointSelector": SELECTOR,
    "nodeSelector": SELECTOR,
    "ingress[]": {**INGRESS_DENY, **ALLOW},
    "ingressDeny[]": INGRESS_DENY,
    "egress[]": {**EGRESS_DENY, **ALLOW, "toFQDNs[]": NAME_MATCH},
    "egressDeny[]": EGRESS_DENY,
    "labels[]": {"key": "string", "value": "string", "source": "string"},
    "enableDefaultDeny": {"ingress": "boolean", "egress": "boolean"},
    "description": "string",
    "log": {"value": "string"},
}
ADDRESSES = {"ipv4": "string", "ipv6": "string"}
NAMED_PORT = {"name": "string", "port": "integer", "protocol": "string"}
FIELDS: dict[str, dict[str, Any]] = {
    "CiliumNetworkPolicy": {"spec": RULE, "specs[]": RULE},
    "CiliumClusterwideNetworkPolicy": {"spec": RULE, "specs[]": RULE},
    "CiliumCIDRGroup": {"spec": {"externalCIDRs[]": "string"}},
    "CiliumIdentity": {"security-labels": "object"},
    "CiliumEndpoint": {
        "status": {
            "id": "integer",
            "identity": {"id": "integer", "labels[]": "string"},
            "networking": {"addressing[]": ADDRESSES, "node": "string"},
            "encryption": {"key": "integer"},
            "named-ports[]": NAMED_PORT,
            "service-account": "string",
            "state": "string",
            "policy": {
                direction: {
                    "enforcing": "boolean",
                    "state": "string",
                    **{
                        f"{name}[]": {
                            "identity": "integer",
                            "identity-labels": "object",
                            "dest-port": "integer",
                            "protocol": "integer",
                        }
                        for name in ("allowed", "denied", "removing", "adding")
                    },
                }
                for direction in ("ingress", "egress")
            },
            "external-identifiers": dict.fromkeys(
                (
                    "cni-attachment-id", "container-id", "container-name", "docker-endpoint-id", "docker-network-id",
                    "k8s-namespace", "k8s-pod-name", "pod-name",
                ),
                "string",
            ),
            "health": {"overallHealth": "string", "bpf": "string", "policy": "string", "connected": "boolean"},
        }
    },
    "CiliumEndpointSlice": {
        "namespace": "string",
        "endpoints[]": {
            "name": "string", "id": "integer", "pod-uid": "string", "encryption": {"key": "integer"},
            "networking": {"addressing[]": ADDRESSES, "node": "string"}, "named-ports[]": NAMED_PORT,
            "service-account": "string",
        },
    },
    "CiliumNode": {
        "spec": {
            "instance-id": "string",
            "bootid": "string",
            "addresses[]": {"type": "string", "ip": "string"},
            "health": ADDRESSES,
            "ingress": ADDRESSES,
            "encryption": {"key": "integer"},
            "ipam": {
                "pool": "object", "ipv6-pool": "object", "podCIDRs[]": "string",
                "pools": {
                    "requested[]": {
                        "pool": "string", "needed": {"ipv4-addrs": "integer", "ipv6-addrs": "integer"},
                    },
                    "allocated[]": {
                        "pool": "string", "cidrs[]": "string", "allowFirstIP": "string", "allowLastIP": "string",
                    },
                },
                "min-allocate": "integer", "max-allocate": "integer", "pre-allocate": "integer",
                "max-above-watermark": "integer", "static-ip-tags": "object",
            },
            "eni": {
                "instance-type": "string", "first-interface-index": "integer", "security-groups[]": "string",
                "security-group-tags": "object", "subnet-ids[]": "string", "subnet-tags": "object",
                "node-subnet-id": "string", "vpc-id": "string", "availability-zone": "string",
                "exclude-interface-tags": "object", "delete-on-termination": "boolean",
                "use-primary-address": "boolean", "disable-prefix-delegation": "boolean",
            },
            "azure": {"interface-name": "string"},
            "alibaba-cloud": {
                "instance-type": "string", "availability-zone": "string", "vpc-id": "string", "cidr-block": "string",
                "vswitches[]": "string", "vswitch-tags": "object", "security-groups[]": "string",
                "security-group-tags": "object",
            },
        },
        "status": {
            "ipam": {
                "used": "object", "ipv6-used": "object", "pod-cidrs": "object", "operator-status": {"error": "string"},
                "release-ips": "object", "release-ipv6s": "object", "assigned-static-ip": "string",
            },
            "eni": {"enis": "object"},
            "azure": {
                "interfaces[]": {
                    "id": "string", "ip": "string", "name": "string", "mac": "string", "state": "string",
                    "addresses[]": {"ip": "string", "state": "string"}, "security-group": "string",
                    "subnet": {"id": "string", "cidr": "string"}, "gateway": "string",
                },
            },
            "alibaba-cloud": {"enis": "object"},
        },
    },
    "CiliumNodeConfig": {"spec": {"nodeSelector": SELECTOR, "defaults": "object"}},
    "CiliumEgressGatewayPolicy": {
        "spec": {
            "selectors[]": {"namespaceSelector": SELECTOR, "podSelector": SELECTOR, "nodeSelector": SELECTOR},
            "destinationCIDRs[]": "string",
            "excludedCIDRs[]": "string",
            "egressGateway": {"nodeSelector": SELECTOR, "interface": "string", "egressIP": "string"},
            "egressGateways[]": {"nodeSelector": SELECTOR, "interface": "string", "egressIP": "string"},
        }
    },
    "CiliumLocalRedirectPolicy": {
        "spec": {
            "redirectFrontend": {
                "addressMatcher": {
                    "ip": "string", "toPorts[]": {"port": "string", "protocol": "string", "name": "string"},
                },
                "serviceMatcher": {
                    "serviceName": "string", "namespace": "string",
                    "toPorts[]": {"port": "string", "protocol": "string", "name": "string"},
                },
            },
            "redirectBackend": {
                "localEndpointSelector": SELECTOR,
                "toPorts[]": {"port": "string", "protocol": "string", "name": "string"},
            },
            "skipRedirectFromBackend": "boolean",
            "description": "string",
        },
        "status": {"ok": "boolean"},
    },
    "CiliumEnvoyConfig": {
        "spec": {
            "services[]": {"name": "string", "namespace": "string", "ports[]": "integer", "listener": "string"},
            "backendServices[]": {"name": "string", "namespace": "string", "number[]": "string"},
            "resources[]": "any",
            "nodeSelector": SELECTOR,
        }
    },
    "CiliumLoadBalancerIPPool": {
        "spec": {
            "serviceSelector": SELECTOR, "blocks[]": {"cidr": "string", "start": "string", "stop": "string"},
            "allowFirstLastIPs": "string", "disabled": "boolean",
        },
    },
    "CiliumL2AnnouncementPolicy": {
        "spec": {
            "nodeSelector": SELECTOR, "serviceSelector": SELECTOR, "loadBalancerIPs": "boolean",
            "externalIPs": "boolean", "interfaces[]": "string",
        },
    },
    "CiliumPodIPPool": {
        "spec": {
            **{
                family: {
                    "cidrs[]": "string", "maskSize": "integer",
                    "pool[]": {"cidr": "string", "reservedRanges[]": {"start": "string", "end": "string"}},
                }
                for family in ("ipv4", "ipv6")
            },
            "podSelector": SELECTOR, "namespaceSelector": SELECTOR, "allowFirstIP": "string", "allowLastIP": "string",
        },
    },
    "CiliumBGPPeerConfig": {
        "spec": {
            "transport": {"peerPort": "integer", "sourceInterface": "string"},
            "timers": {
                "connectRetryTimeSeconds": "integer", "holdTimeSeconds": "integer", "keepAliveTimeSeconds": "integer",
            },
            "authSecretRef": "string",
            "gracefulRestart": {"enabled": "boolean", "restartTimeSeconds": "integer"},
            "ebgpMultihop": "integer",
            "families[]": {"afi": "string", "safi": "string", "advertisements": SELECTOR},
        },
    },
}  # fmt: skip
"""By kind: fields (`[]`: a list of these) and their types."""

# kind, plural, short names, namespaced, versions (the stored one first)
NAMES = """
CiliumNetworkPolicy              ciliumnetworkpolicies              cnp,ciliumnp                       yes  v2
CiliumClusterwideNetworkPolicy   ciliumclusterwidenetworkpolicies   ccnp                               no   v2
CiliumCIDRGroup                  ciliumcidrgroups                   ccg                                no   v2,v2alpha1
CiliumEgressGatewayPolicy        ciliumegressgatewaypolicies        cegp                               no   v2
CiliumEndpoint                   ciliumendpoints                    cep,ciliumep                       yes  v2
CiliumEndpointSlice              ciliumendpointslices               ces                                no   v2alpha1
CiliumIdentity                   ciliumidentities                   ciliumid                           no   v2
CiliumNode                       ciliumnodes                        cn,ciliumn                         no   v2
CiliumNodeConfig                 ciliumnodeconfigs                  -                                  yes  v2,v2alpha1
CiliumLocalRedirectPolicy        ciliumlocalredirectpolicies        clrp                               yes  v2
CiliumEnvoyConfig                ciliumenvoyconfigs                 cec                                yes  v2
CiliumClusterwideEnvoyConfig     ciliumclusterwideenvoyconfigs      ccec                               no   v2
CiliumLoadBalancerIPPool         ciliumloadbalancerippools          ippools,ippool,lbippool,lbippools  no   v2,v2alpha1
CiliumL2AnnouncementPolicy       ciliuml2announcementpolicies       l2announcement                     no   v2alpha1
CiliumPodIPPool                  ciliumpodippools                   cpip                               no   v2alpha1,v2
CiliumBGPClusterConfig           ciliumbgpclusterconfigs            cbgpcluster                        no   v2,v2alpha1
CiliumBGPPeerConfig              ciliumbgppeerconfigs               cbgppeer                           no   v2,v2alpha1
CiliumBGPAdvertisement           ciliumbgpadvertisements            cbgpadvert                         no   v2,v2alpha1
CiliumBGPNodeConfig              ciliumbgpnodeconfigs               cbgpnode                           no   v2,v2alpha1
CiliumBGPNodeConfigOverride      ciliumbgpnodeconfigoverrides       cbgpnodeoverride                   no   v2,v2alpha1
CiliumGatewayClassConfig         ciliumgatewayclassconfigs          cgcc                               yes  v2alpha1
CiliumDatapathPlugin             ciliumdatapathplugins              cddp                               no   v2alpha1
CiliumNetworkDriverClusterConfig ciliumnetworkdriverclusterconfigs  ndcc                               no   v2alpha1
CiliumNetworkDriverNodeConfig    ciliumnetworkdrivernodeconfigs     ndnc                               no   v2alpha1
CiliumResourceIPPool             ciliumresourceippools              crip                               no   v2alpha1
"""


def schema_of(definition: Definition, version: str = "") -> dict[str, Any]:
    versions = definition_object(definition)["spec"]["versions"]
    found = next(v for v in versions if (v["name"] == version if version else v["storage"]))
    schema: dict[str, Any] = found["schema"]["openAPIV3Schema"]
    return schema


def lacking(schema: dict[str, Any], fields: dict[str, Any], path: str = "") -> Iterator[str]:
    """What a schema lacks of these fields, or has with another type."""
    for name, wanted in fields.items():
        where = f"{path}.{name}"
        found = schema.get("properties", {}).get(name.removesuffix("[]"))
        if found is None:
            yield where
            continue
        if name.endswith("[]"):
            if found.get("type") != "array":
                yield f"{where}: no list"
            found = found.get("items", {})
        if isinstance(wanted, dict):
            yield from lacking(found, wanted, where)
        elif wanted == "any":
            if not found.get("x-kubernetes-preserve-unknown-fields"):
                yield f"{where}: something of it is removed"
        elif wanted == "int-or-string":
            if not found.get("x-kubernetes-int-or-string"):
                yield f"{where}: is not int-or-string"
        elif found.get("type") != wanted:
            yield f"{where}: is {found.get('type')}"
        elif wanted == "object" and "additionalProperties" not in found:
            yield f"{where}: keys are removed"


def unknown(schema: dict[str, Any], fields: dict[str, Any], path: str = "") -> Iterator[str]:
    """What a schema has beyond these fields."""
    names = {name.removesuffix("[]"): wanted for name, wanted in fields.items()}
    for name, found in schema.get("properties", {}).items():
        if name not in names:
            yield f"{path}.{name}"
        elif isinstance(names[name], dict):
            yield from unknown(found.get("items", found), names[name], f"{path}.{name}")


@pytest.mark.parametrize("kind", FIELDS)
def test_a_schema_has_every_field_that_cilium_has(kind: str) -> None:
    for version in BY_KIND[kind].versions:
        assert list(lacking(schema_of(BY_KIND[kind], version.name), FIELDS[kind])) == []


def test_a_policys_schema_has_no_field_that_cilium_lacks() -> None:
    for kind in ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"):
        found = set(unknown(schema_of(BY_KIND[kind]), FIELDS[kind]))
        assert found == {".apiVersion", ".kind", ".metadata", ".status"}


def test_the_reader_of_policies_knows_the_same_fields() -> None:
    assert set(RULE) == {f"{name}[]" if name in (*cnp.SECTIONS, "labels") else name for name in cnp.RULE_FIELDS}
    spec = schema_of(BY_KIND["CiliumNetworkPolicy"])["properties"]["spec"]["properties"]
    icmp = spec["ingress"]["items"]["properties"]["icmps"]["items"]["properties"]["fields"]
    pattern = re.compile(icmp["items"]["properties"]["type"]["pattern"])
    assert all(pattern.match(name) for name in (*ports.ICMP_TYPES, *ports.ICMPV6_TYPES))
    assert icmp["maxItems"] == ports.FIELDS_MAX
    port = spec["ingress"]["items"]["properties"]["toPorts"]["items"]["properties"]["ports"]
    assert port["maxItems"] == cnp.PORTS_MAX


@pytest.mark.parametrize("line", NAMES.strip().splitlines())
def test_a_kind_is_called_as_cilium_calls_it(line: str) -> None:
    kind, plural, short, namespaced, versions = line.split()
    definition = BY_KIND[kind]
    obj = definition_object(definition)
    assert (definition.plural, obj["metadata"]["name"]) == (plural, f"{plural}.{GROUP}")
    assert definition.short_names == (() if short == "-" else tuple(short.split(",")))
    assert definition.namespaced == (namespaced == "yes")
    assert [version.name for version in definition.versions] == versions.split(",")
    assert [version.stored for version in definition.versions] == [True, *[False] * (versions.count(","))]
    assert "cilium" in obj["spec"]["names"]["categories"]


def test_all_kinds_are_there_and_those_of_the_model_agree() -> None:
    assert set(BY_KIND) == {line.split()[0] for line in NAMES.strip().splitlines()}
    ours = [kind for kind in KINDS if kind.api_version.startswith(GROUP)]
    assert len(ours) == 6
    for kind in ours:
        definition = BY_KIND[kind.kind]
        assert (kind.plural, kind.short_names, kind.namespaced) == (
            definition.plural,
            definition.short_names,
            definition.namespaced,
        )
        if kind.kind != "CiliumCIDRGroup":  # which nobody writes the status of
            assert kind.has_status == definition.has_status


STRUCTURAL = {
    "type", "properties", "additionalProperties", "items", "default", "title", "description", "nullable",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-validations",
}  # fmt: skip


def violations(schema: dict[str, Any], path: str, inside: bool = False) -> Iterator[str]:
    """What makes a schema not structural."""
    if not inside and "type" not in schema and "x-kubernetes-int-or-string" not in schema:
        yield f"{path}: has no type"
    if inside and (found := set(schema) & (STRUCTURAL - {"properties", "items"})):
        yield f"{path}: {', '.join(sorted(found))} may not be in a combination"
    for name, inner in schema.get("properties", {}).items():
        yield from violations(inner, f"{path}.{name}", inside)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from violations(schema[name], f"{path}.{name}", inside)
    if "x-kubernetes-int-or-string" in schema:
        return
    for name in ("allOf", "anyOf", "oneOf"):
        for number, inner in enumerate(schema.get(name, ())):
            yield from violations(inner, f"{path}.{name}[{number}]", True)
    if "not" in schema:
        yield from violations(schema["not"], f"{path}.not", True)


@pytest.mark.parametrize("kind", BY_KIND)
def test_schemas_are_structural(kind: str) -> None:
    for version in BY_KIND[kind].versions:
        assert list(violations(schema_of(BY_KIND[kind], version.name), kind)) == []
