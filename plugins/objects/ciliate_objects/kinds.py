"""Which kinds of objects a command line can name, and what plugins say of an object before it is stored."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from ciliate.cli.dispatch import CommandError
from ciliate.config import CoreConfig
from ciliate.loading import Loaded, load_plugins
from ciliate.model.kinds import KINDS
from ciliate.review import Finding
from ciliate.store import Kind, Object

ANY_ROLE = "*"


@dataclass(frozen=True)
class KnownKinds:
    """Kinds by the names that users give them."""

    kinds: tuple[Kind, ...]

    def of(self, obj: Object) -> Kind:
        """The kind of an object. Raises CommandError."""
        for kind in self.kinds:
            if (kind.api_version, kind.kind) == (obj["apiVersion"], obj["kind"]):
                return kind
        known = ", ".join(sorted(f"{kind.kind} ({kind.api_version})" for kind in self.kinds))
        raise CommandError(f"kind {obj['kind']} of {obj['apiVersion']} is unknown; known are {known}")

    def named(self, name: str) -> Kind:
        """A kind by its name, plural, short name, or plural.group, in upper or lower case. Raises CommandError."""
        wanted = name.lower()
        for kind in self.kinds:
            if wanted in (kind.plural, kind.kind.lower(), f"{kind.plural}{group_suffix(kind)}", *kind.short_names):
                return kind
        known = ", ".join(sorted(f"{kind.plural} ({', '.join(kind.short_names)})" for kind in self.kinds))
        raise CommandError(f"kind {name!r} is unknown; known are {known}")


def group_suffix(kind: Kind) -> str:
    """`.cilium.io` of cilium.io/v2; nothing of v1."""
    group, slash, _ = kind.api_version.partition("/")
    return f".{group}" if slash else ""


def called(kind: Kind, name: str) -> str:
    """An object as messages name it: `ciliumnetworkpolicy.cilium.io/web`."""
    return f"{kind.kind.lower()}{group_suffix(kind)}/{name}"


@dataclass(frozen=True)
class Reviewers:
    """The cluster's plugins, imported for what they say of objects."""

    loaded: Loaded

    @classmethod
    def load(cls, config: CoreConfig) -> Reviewers:
        """Import the cluster's plugins; one that can't be is named on standard error and not asked."""
        loaded = load_plugins(config.plugins, ANY_ROLE)
        for name, reason in loaded.refused.items():
            print(f"warning: plugin {name} can't be asked about objects: {reason}", file=sys.stderr)
        return cls(loaded)

    def kinds(self) -> KnownKinds:
        """The kinds of the model and of the plugins."""
        added: Iterable[Kind] = (k for kinds in self.loaded.manager.hook.ciliate_kinds() for k in kinds)
        return KnownKinds(tuple(dict.fromkeys((*KINDS, *added))))

    def findings(self, obj: Object) -> list[Finding]:
        """What is wrong with an object, or not enforced."""
        return [finding for findings in self.loaded.manager.hook.ciliate_review(obj=obj) for finding in findings]


def kinds_for(config: CoreConfig, names: Iterable[str]) -> list[Kind]:
    """Kinds by name; plugins are imported only if the model does not know them. Raises CommandError."""
    known = KnownKinds(KINDS)
    try:
        return [known.named(name) for name in names]
    except CommandError:
        known = Reviewers.load(config).kinds()
        return [known.named(name) for name in names]
