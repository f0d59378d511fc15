"""CiliumPodIPPool."""

from __future__ import annotations

from ciliate_kubernetes.crds.definition import Definition, Version
from ciliate_kubernetes.crds.kinds.clouds import YES_NO
from ciliate_kubernetes.crds.schema import Schema, array, fields, fixed, integer, label_selector, string


def _family(longest: int) -> Schema:
    size = integer(least=1, most=longest)
    size["x-kubernetes-validations"] = [fixed("maskSize never changes: nodes have ranges of that size")]
    reserved = fields({"start": string(), "end": string()})
    pool = fields({"cidr": string(format="cidr"), "reservedRanges": array(reserved)}, required=("cidr",))
    return fields(
        {"cidrs": array(string(format="cidr"), most=32), "maskSize": size, "pool": array(pool)}, required=("maskSize",)
    )


_SPEC = fields(
    {
        "ipv4": _family(32),
        "ipv6": _family(128),
        "podSelector": label_selector(),
        "namespaceSelector": label_selector(),
        "allowFirstIP": YES_NO,
        "allowLastIP": YES_NO,
    }
)

DEFINITIONS = (
    Definition(
        "CiliumPodIPPool",
        "ciliumpodippools",
        ("cpip",),
        False,
        (
            Version("v2alpha1", {"spec": _SPEC}, ("spec",)),
            Version("v2", {"spec": _SPEC}, ("spec",), served=False, stored=False),
        ),
        has_status=False,
    ),
)
