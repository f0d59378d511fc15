"""CiliumGatewayClassConfig."""

from __future__ import annotations

from ciliate_kubernetes.crds.definition import AGE, Column, Definition, Version
from ciliate_kubernetes.crds.schema import ATOMIC, Schema, anything, array, boolean, conditions, fields, string


def _service() -> Schema:
    return fields(
        {
            "type": string(one_of=("LoadBalancer", "NodePort"), default="LoadBalancer"),
            "externalTrafficPolicy": string(default="Cluster"),
            "loadBalancerClass": string(),
            "ipFamilies": array(string(), **ATOMIC),
            "ipFamilyPolicy": string(),
            "allocateLoadBalancerNodePorts": boolean(),
            "loadBalancerSourceRanges": array(string(), **ATOMIC),
            "loadBalancerSourceRangesPolicy": string(one_of=("Allow", "Deny"), default="Allow"),
            "trafficDistribution": string(),
        }
    )


def _spec() -> Schema:
    log = fields(
        {
            "format": string(one_of=("JSON", "Text")),
            "json": anything(),
            "text": string(),
            "targets": array(string(one_of=("HTTP", "TCP"))),
        }
    )
    header = string(one_of=("OVERWRITE", "APPEND_IF_ABSENT", "PASS_THROUGH"))
    web = fields({"grpcWebTranslation": fields({"enabled": boolean()})})
    return fields(
        {
            "description": string(most=64),
            "service": _service(),
            "httpOptions": web,
            "telemetry": fields({"accessLogs": array(log)}),
            "envoy": fields({"serverHeaderTransformation": header}),
        }
    )


DEFINITIONS = (
    Definition(
        "CiliumGatewayClassConfig",
        "ciliumgatewayclassconfigs",
        ("cgcc",),
        True,
        (
            Version(
                "v2alpha1",
                {"spec": _spec(), "status": fields({"conditions": conditions()})},
                columns=(
                    Column("Accepted", ".status.conditions[?(@.type=='Accepted')].status"),
                    AGE,
                    Column("Description", ".spec.description", priority=1),
                ),
            ),
        ),
    ),
)
