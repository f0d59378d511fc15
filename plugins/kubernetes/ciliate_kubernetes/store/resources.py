"""Kinds as the API server's resources: paths, and what it can select by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote, urlencode

from ciliate.fields import ObjectDecoder, decoder, matches
from ciliate.store import Kind, Object, Selection

from ciliate_kubernetes.store.errors import Asked

_EVERYWHERE = frozenset({"metadata.name", "metadata.namespace"})
_OURS: Mapping[str, frozenset[str]] = {"ciliumendpoints.cilium.io": frozenset({"status.networking.node"})}
"""The same of kinds whose definitions say so (selectableFields); an older definition does not."""
_SELECTABLE: Mapping[str, frozenset[str]] = {
    "pods": frozenset(
        {"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork"}
        | {"status.phase", "status.podIP", "status.nominatedNodeName"}
    ),
    "nodes": frozenset({"spec.unschedulable"}),
    "namespaces": frozenset({"status.phase"}),
    "services": frozenset({"spec.clusterIP", "spec.type"}),
    "secrets": frozenset({"type"}),
}
"""Fields of the core's kinds by which an API server selects, beside those that it knows in every kind."""


def resource(kind: Kind) -> str:
    """A kind's resource and group, as `ciliumnodes.cilium.io`."""
    group, slash, _ = kind.api_version.partition("/")
    return f"{kind.plural}.{group}" if slash else kind.plural


def path(kind: Kind, namespace: str | None, name: str = "", subresource: str = "") -> str:
    """The path of a kind's objects, of all namespaces or of one, or of an object."""
    parts = ["api" if "/" not in kind.api_version else "apis", kind.api_version]
    if kind.namespaced and namespace:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(kind.plural)
    if name:
        parts.append(quote(name, safe=""))
    if subresource:
        parts.append(subresource)
    return "/" + "/".join(parts)


def asked(verb: str, kind: Kind, namespace: str = "", name: str = "", subresource: str = "") -> Asked:
    """What a request is, for messages."""
    where = f"{namespace}/{name}" if namespace and name else name
    return Asked(verb, resource(kind) + (f"/{subresource}" if subresource else ""), where)


def target(place: str, query: Mapping[str, str]) -> str:
    """Path and query, quoted."""
    return f"{place}?{urlencode(query, quote_via=quote)}" if query else place


@dataclass(frozen=True)
class Wanted:
    """Which objects of a kind a reader wants, and what of them."""

    kind: Kind
    namespace: str | None = None
    fields: Selection | None = None
    labels: Selection | None = None
    plain: bool = False  # the kind's definition is an older one

    @property
    def path(self) -> str:
        """Where they are."""
        return path(self.kind, self.namespace)

    @property
    def may_be_refused(self) -> bool:
        """Whether the API server is asked to select by what an older definition does not offer."""
        return not self.plain and bool(_OURS.get(resource(self.kind), frozenset()).intersection(self.fields or ()))

    def _selectable(self, path: str) -> bool:
        of_kind = _SELECTABLE.get(self.kind.plural, ()) if self.kind.api_version == "v1" else ()
        return path in _EVERYWHERE or path in of_kind or (not self.plain and path in _OURS.get(resource(self.kind), ()))

    @property
    def query(self) -> dict[str, str]:
        """The selectors that the API server applies."""
        fields = {path: value for path, value in (self.fields or {}).items() if self._selectable(path)}
        found = {"fieldSelector": _selector(fields), "labelSelector": _selector(self.labels or {})}
        return {key: value for key, value in found.items() if value}

    @cached_property
    def filter(self) -> dict[str, str]:
        """The fields that are left to us."""
        return {path: value for path, value in (self.fields or {}).items() if not self._selectable(path)}

    def passes(self, obj: Object) -> bool:
        """Whether an object that the API server has selected matches altogether."""
        return not (left := self.filter) or matches(obj, left)

    @property
    def decoder(self) -> ObjectDecoder:
        """How objects are decoded: what the reader wants, and what they are filtered by."""
        return decoder((*self.kind.fields, *self.filter) if self.kind.fields else ())


def _selector(pairs: Mapping[str, str]) -> str:
    """Equality of all, as the API server reads it: in values, backslash, comma and equals sign are escaped."""
    return ",".join(f"{key}={_escaped(value)}" for key, value in pairs.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
