"""CiliumLocalRedirectPolicy."""

from __future__ import annotations

from ciliate_kubernetes.crds.definition import Definition, Version
from ciliate_kubernetes.crds.kinds.policy_ports import PORT
from ciliate_kubernetes.crds.schema import Schema, array, boolean, exactly_one, fields, fixed, label_selector, string


def _ports() -> Schema:
    port = fields(
        {"port": PORT, "protocol": string(one_of=("TCP", "UDP")), "name": string()}, required=("port", "protocol")
    )
    return array(port)


def _fixed(schema: Schema, name: str) -> Schema:
    return {**schema, "x-kubernetes-validations": [fixed(f"{name} never changes; make another policy")]}


_ADDRESS = fields(
    {"ip": string(anyOf=[{"format": "ipv4"}, {"format": "ipv6"}]), "toPorts": _ports()}, required=("ip", "toPorts")
)
_SERVICE = fields(
    {"serviceName": string(), "namespace": string(), "toPorts": _ports()}, required=("namespace", "serviceName")
)
_MATCHERS = {"addressMatcher": _ADDRESS, "serviceMatcher": _SERVICE}
_FRONTEND = fields(_MATCHERS, **exactly_one(_MATCHERS))
_BACKEND = fields(
    {"localEndpointSelector": label_selector(), "toPorts": _ports()}, required=("localEndpointSelector", "toPorts")
)
_SPEC = fields(
    {
        "redirectFrontend": _fixed(_FRONTEND, "redirectFrontend"),
        "redirectBackend": _fixed(_BACKEND, "redirectBackend"),
        "skipRedirectFromBackend": _fixed(boolean(default=False), "skipRedirectFromBackend"),
        "description": string(),
    },
    required=("redirectBackend", "redirectFrontend"),
)

DEFINITIONS = (
    Definition(
        "CiliumLocalRedirectPolicy",
        "ciliumlocalredirectpolicies",
        ("clrp",),
        True,
        (Version("v2", {"spec": _SPEC, "status": fields({"ok": boolean()})}),),
        ("cilium", "ciliumpolicy"),
    ),
)
