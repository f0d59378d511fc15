"""CiliumEnvoyConfig and CiliumClusterwideEnvoyConfig."""

from __future__ import annotations

from ciliate_kubernetes.crds.definition import Definition, Version
from ciliate_kubernetes.crds.schema import Schema, anything, array, fields, integer, label_selector, string


def _spec() -> Schema:
    service = fields(
        {
            "name": string(),
            "namespace": string(),
            "ports": array(integer(least=0, most=65535)),
            "listener": string(),
        },
        required=("name",),
    )
    backend = fields({"name": string(), "namespace": string(), "number": array(string())}, required=("name",))
    return fields(
        {
            "services": array(service),
            "backendServices": array(backend),
            "resources": array(anything()),  # Envoy's, of any type
            "nodeSelector": label_selector(),
        },
        required=("resources",),
    )


_VERSIONS = (Version("v2", {"spec": _spec()}),)

DEFINITIONS = (
    Definition("CiliumEnvoyConfig", "ciliumenvoyconfigs", ("cec",), True, _VERSIONS, has_status=False),
    Definition(
        "CiliumClusterwideEnvoyConfig", "ciliumclusterwideenvoyconfigs", ("ccec",), False, _VERSIONS, has_status=False
    ),
)
