"""What a custom resource definition says besides its schema, and the object that says it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ciliate.store import Object

from ciliate_kubernetes.crds.schema import Schema

GROUP = "cilium.io"
VERSION_LABEL = "io.cilium.k8s.crd.schema.version"
VERSION = "1.34.2"
"""Of Cilium's schemas, which ours have every field of."""
REVISION_LABEL = "ciliate.io/crd-revision"
REVISION = 1
"""Of what we add, and of what we mend; grows with every change in `kinds/` that keeps VERSION."""


class Column(NamedTuple):
    """A column that kubectl prints. priority 1: with `-o wide` only."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0
    format: str = ""


AGE = Column("Age", ".metadata.creationTimestamp", "date")


@dataclass(frozen=True)
class Version:
    """One version of a kind. Exactly one of a kind's is stored."""

    name: str
    schema: Schema  # of spec, status and whatever else is at the top beside metadata
    required: tuple[str, ...] = ()
    columns: tuple[Column, ...] = (AGE,)
    served: bool = True
    stored: bool = True
    deprecated: bool = False
    rules: tuple[Schema, ...] = ()


@dataclass(frozen=True)
class Definition:
    """One kind."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    namespaced: bool
    versions: tuple[Version, ...]
    categories: tuple[str, ...] = ("cilium",)
    has_status: bool = True
    selectable: tuple[str, ...] = field(default=())  # paths of fields that lists and watches may ask for

    @property
    def name(self) -> str:
        """The definition's, as `ciliumnodes.cilium.io`."""
        return f"{self.plural}.{GROUP}"


def definition_object(definition: Definition) -> Object:
    """The CustomResourceDefinition."""
    names = {"kind": definition.kind, "listKind": f"{definition.kind}List", "plural": definition.plural}
    names["singular"] = definition.kind.lower()
    lists = {"shortNames": list(definition.short_names), "categories": list(definition.categories)}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": definition.name, "labels": {VERSION_LABEL: VERSION, REVISION_LABEL: str(REVISION)}},
        "spec": {
            "group": GROUP,
            "names": {**names, **{key: value for key, value in lists.items() if value}},
            "scope": "Namespaced" if definition.namespaced else "Cluster",
            "conversion": {"strategy": "None"},
            "versions": [_version(definition, version) for version in definition.versions],
        },
    }


def _version(definition: Definition, version: Version) -> Object:
    schema: Schema = {
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            **version.schema,
        },
    }
    if version.required:
        schema["required"] = list(version.required)
    if version.rules:
        schema["x-kubernetes-validations"] = list(version.rules)
    found: Object = {
        "name": version.name,
        "served": version.served,
        "storage": version.stored,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": [_column(column) for column in version.columns],
        "subresources": {"status": {}} if definition.has_status else {},
    }
    if version.deprecated:
        found["deprecated"] = True
    if definition.selectable:
        found["selectableFields"] = [{"jsonPath": path} for path in definition.selectable]
    return found


def _column(column: Column) -> Object:
    found: Object = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.priority:
        found["priority"] = column.priority
    if column.format:
        found["format"] = column.format
    return found
