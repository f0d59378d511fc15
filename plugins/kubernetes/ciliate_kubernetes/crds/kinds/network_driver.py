"""Kinds of Cilium 1.20 for network drivers and plug-ins of the data path. Their parts are not known for certain."""

from __future__ import annotations

from ciliate_kubernetes.crds.definition import Definition, Version
from ciliate_kubernetes.crds.schema import anything

_OPEN = {"spec": anything(), "status": anything()}


def _definition(kind: str, plural: str, short: str) -> Definition:
    return Definition(kind, plural, (short,), False, (Version("v2alpha1", _OPEN),))


DEFINITIONS = (
    _definition("CiliumDatapathPlugin", "ciliumdatapathplugins", "cddp"),
    _definition("CiliumNetworkDriverClusterConfig", "ciliumnetworkdriverclusterconfigs", "ndcc"),
    _definition("CiliumNetworkDriverNodeConfig", "ciliumnetworkdrivernodeconfigs", "ndnc"),
    _definition("CiliumResourceIPPool", "ciliumresourceippools", "crip"),
)
