"""CiliumLoadBalancerIPPool and CiliumL2AnnouncementPolicy."""

from __future__ import annotations

from ciliate_kubernetes.crds.definition import AGE, Column, Definition, Version
from ciliate_kubernetes.crds.kinds.clouds import YES_NO
from ciliate_kubernetes.crds.schema import array, boolean, conditions, fields, label_selector, string

_BLOCK = fields({"cidr": string(format="cidr"), "start": string(), "stop": string()})
_POOL = {
    "spec": fields(
        {
            "serviceSelector": label_selector(),
            "blocks": array(_BLOCK),
            "allowFirstLastIPs": YES_NO,
            "disabled": boolean(default=False),
        }
    ),
    "status": fields({"conditions": conditions()}),
}
_COLUMNS = (
    Column("Disabled", ".spec.disabled", "boolean"),
    Column("Conflicting", '.status.conditions[?(@.type=="cilium.io/PoolConflict")].status'),
    Column("IPs Available", '.status.conditions[?(@.type=="cilium.io/IPsAvailable")].message'),
    AGE,
)
_L2 = {
    "spec": fields(
        {
            "nodeSelector": label_selector(),
            "serviceSelector": label_selector(),
            "loadBalancerIPs": boolean(),
            "externalIPs": boolean(),
            "interfaces": array(string()),
        }
    ),
    "status": fields({"conditions": conditions()}),
}

DEFINITIONS = (
    Definition(
        "CiliumLoadBalancerIPPool",
        "ciliumloadbalancerippools",
        ("ippools", "ippool", "lbippool", "lbippools"),
        False,
        (
            Version("v2", _POOL, ("spec",), _COLUMNS),
            Version("v2alpha1", _POOL, ("spec",), _COLUMNS, stored=False, deprecated=True),
        ),
    ),
    Definition(
        "CiliumL2AnnouncementPolicy",
        "ciliuml2announcementpolicies",
        ("l2announcement",),
        False,
        (Version("v2alpha1", _L2),),
    ),
)
