"""CiliumIdentity."""

from __future__ import annotations

from ciliate_kubernetes.crds.definition import AGE, Column, Definition, Version
from ciliate_kubernetes.crds.schema import fixed, mapping, rule, string

_LABELS = mapping(string())
_LABELS["x-kubernetes-validations"] = [fixed("an identity's labels never change: its number stands for them")]

DEFINITIONS = (
    Definition(
        "CiliumIdentity",
        "ciliumidentities",
        ("ciliumid",),
        False,
        (
            Version(
                "v2",
                {"security-labels": _LABELS},
                ("security-labels",),
                columns=(Column("Namespace", r".metadata.labels.io\.kubernetes\.pod\.namespace"), AGE),
                rules=(rule("self.metadata.name.matches('^[0-9]+$')", "an identity's name is its number"),),
            ),
        ),
        has_status=False,
    ),
)
