"""CiliumEgressGatewayPolicy."""

from __future__ import annotations

from ciliate_kubernetes.crds.definition import Definition, Version
from ciliate_kubernetes.crds.kinds.policy import CIDR
from ciliate_kubernetes.crds.schema import Schema, array, fields, label_selector, rule, string


def _gateway() -> Schema:
    one = rule("!(has(self.interface) && has(self.egressIP))", "interface and egressIP exclude each other")
    return fields(
        {
            "nodeSelector": label_selector(),
            "interface": string(most=255),
            "egressIP": string(most=45, anyOf=[{"format": "ipv4"}, {"format": "ipv6"}]),
        },
        required=("nodeSelector",),
        **{"x-kubernetes-validations": [one]},
    )


_SELECTOR = fields({name: label_selector() for name in ("namespaceSelector", "podSelector", "nodeSelector")})
_SPEC = fields(
    {
        "selectors": array(_SELECTOR),
        "destinationCIDRs": array(CIDR),
        "excludedCIDRs": array(CIDR),
        "egressGateway": _gateway(),
        "egressGateways": array(_gateway(), most=64),
    },
    required=("destinationCIDRs", "egressGateway", "selectors"),
)

DEFINITIONS = (
    Definition(
        "CiliumEgressGatewayPolicy",
        "ciliumegressgatewaypolicies",
        ("cegp",),
        False,
        (Version("v2", {"spec": _SPEC}),),
        ("cilium", "ciliumpolicy"),
        has_status=False,
    ),
)
