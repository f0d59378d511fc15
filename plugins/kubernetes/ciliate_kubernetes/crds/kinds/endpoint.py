"""CiliumEndpoint and CiliumEndpointSlice."""

from __future__ import annotations

from ciliate_kubernetes.crds.definition import AGE, Column, Definition, Version
from ciliate_kubernetes.crds.schema import (
    Schema,
    anything,
    array,
    boolean,
    fields,
    integer,
    mapping,
    string,
)

STATES = (
    "creating", "waiting-for-identity", "not-ready", "waiting-to-regenerate", "regenerating", "restoring", "ready",
    "disconnecting", "disconnected", "invalid",
)  # fmt: skip


def networking() -> Schema:
    """Addresses of a pod, and of its node."""
    addressing = fields({"ipv4": string(), "ipv6": string()})
    return fields({"addressing": array(addressing), "node": string()}, required=("addressing",))


def encryption() -> Schema:
    """The index of the key in use."""
    return fields({"key": integer()})


def named_ports() -> Schema:
    """Ports of a pod's containers that have names."""
    return array(fields({"name": string(), "port": integer(), "protocol": string()}))


def _policy() -> Schema:
    tuple_ = fields(
        {
            "dest-port": integer(),
            "identity": integer(),
            "identity-labels": mapping(string()),
            "protocol": integer(),
        }
    )
    lists = {name: array(tuple_) for name in ("adding", "allowed", "denied", "removing")}
    direction = fields({**lists, "enforcing": boolean(), "state": string()}, required=("enforcing",))
    return fields({"ingress": direction, "egress": direction})


def _controller() -> Schema:
    counts = {
        "consecutive-failure-count": integer(),
        "failure-count": integer(),
        "last-failure-msg": string(),
        "last-failure-timestamp": string(),
        "last-success-timestamp": string(),
        "success-count": integer(),
    }
    return fields({"configuration": anything(), "name": string(), "status": fields(counts), "uuid": string()})


def _status() -> Schema:
    identifiers = (
        "cni-attachment-id", "container-id", "container-name", "docker-endpoint-id", "docker-network-id",
        "k8s-namespace", "k8s-pod-name", "pod-name",
    )  # fmt: skip
    health = {"bpf": string(), "connected": boolean(), "overallHealth": string(), "policy": string()}
    return fields(
        {
            "id": integer(),
            "identity": fields({"id": integer(format="int64"), "labels": array(string())}),
            "networking": networking(),
            "encryption": encryption(),
            "external-identifiers": fields({name: string() for name in identifiers}),
            "named-ports": named_ports(),
            "service-account": string(),
            "state": string(one_of=STATES),
            "policy": _policy(),
            "health": fields(health),
            "controllers": array(_controller()),
            "log": array(anything()),
            "visibility-policy-status": string(),
        }
    )


def _slice() -> dict[str, Schema]:
    core = fields(
        {
            "name": string(),
            "id": integer(format="int64"),
            "pod-uid": string(),
            "networking": networking(),
            "encryption": encryption(),
            "named-ports": named_ports(),
            "service-account": string(),
        }
    )
    return {"namespace": string(), "endpoints": array(core)}


_COLUMNS = (
    Column("Security Identity", ".status.identity.id", "integer"),
    Column("Ingress Enforcement", ".status.policy.ingress.state", priority=1),
    Column("Egress Enforcement", ".status.policy.egress.state", priority=1),
    Column("Endpoint State", ".status.state"),
    Column("IPv4", ".status.networking.addressing[0].ipv4"),
    Column("IPv6", ".status.networking.addressing[0].ipv6"),
)

DEFINITIONS = (
    Definition(
        "CiliumEndpoint",
        "ciliumendpoints",
        ("cep", "ciliumep"),
        True,
        (Version("v2", {"status": _status()}, columns=_COLUMNS),),
        has_status=False,  # one request writes all of it
        selectable=(".status.networking.node",),  # a node follows its own
    ),
    Definition(
        "CiliumEndpointSlice",
        "ciliumendpointslices",
        ("ces",),
        False,
        (Version("v2alpha1", _slice(), ("endpoints",), columns=(AGE,)),),
        has_status=False,
    ),
)
