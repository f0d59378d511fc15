"""Reading manifests: YAML and JSON, several documents a file, lists; each problem is named by file and document.

Stricter than YAML where its leniency would lose something silently: a key given twice is an error.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml
from ciliate.cli.dispatch import CommandError
from ciliate.store import Object

SUFFIXES = (".yaml", ".yml", ".json")
_SEPARATOR = re.compile(r"^---(?=\s|$).*$", re.MULTILINE)
_MOST_VALUES = 2_000_000
"""Values of one document, aliases counted where they stand: a small file can name the same thing a billion times."""


@dataclass(frozen=True)
class Manifest:
    """One object and where it was read."""

    obj: Object
    where: str


@dataclass(frozen=True)
class BadManifest:
    """A document that is no object, and why."""

    where: str
    problem: str


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as Kubernetes means it: no timestamps, no key twice."""

    yaml_implicit_resolvers = {
        letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that stands twice in one map."""
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key != "<<" and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def read_manifests(sources: list[str], recursive: bool = False) -> Iterator[Manifest | BadManifest]:
    """All objects of files, folders (their .yaml, .yml and .json files, by name) and `-` (standard input).

    Raises CommandError if a source does not exist.
    """
    for source in sources:
        if source == "-":
            yield from _read(sys.stdin.buffer.read(), "standard input")
            continue
        path = Path(source)
        if path.is_dir():
            found = sorted(p for p in path.glob("**/*" if recursive else "*") if p.suffix in SUFFIXES and p.is_file())
            if not found:
                raise CommandError(f"-f {source}: no {', '.join(SUFFIXES)} file in this folder")
        elif path.exists():
            found = [path]
        else:
            raise CommandError(f"-f {source}: no such file or folder")
        for file in found:
            try:
                yield from _read(file.read_bytes(), str(file))
            except OSError as error:
                yield BadManifest(str(file), f"can't be read: {error.strerror}")


def _read(raw: bytes, name: str) -> Iterator[Manifest | BadManifest]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield BadManifest(name, f"is not UTF-8: byte {raw[error.start]:#04x} at offset {error.start}")
        return
    starts = [0, *(match.end() for match in _SEPARATOR.finditer(text))]
    ends = [*(match.start() for match in _SEPARATOR.finditer(text)), len(text)]
    pieces = [(text.count("\n", 0, start), text[start:end]) for start, end in zip(starts, ends, strict=True)]
    filled = [(line, piece) for line, piece in pieces if piece.strip()]
    for index, (line, piece) in enumerate(filled, 1):
        where = f"{name}, document {index}" if len(filled) > 1 else name
        yield from _objects(piece, line, where)


def _objects(text: str, line: int, where: str) -> Iterator[Manifest | BadManifest]:
    """The objects of one document, which begins after `line` lines of its file."""
    try:
        document = yaml.load(text, _Loader)
        if document is None:
            return
        if _count(document) > _MOST_VALUES:
            raise ValueError(f"has more than {_MOST_VALUES} values")
        plain = msgspec.json.decode(msgspec.json.encode(document))
    except yaml.MarkedYAMLError as error:
        at = f" at line {error.problem_mark.line + 1 + line}" if error.problem_mark else ""
        yield BadManifest(where, f"is not YAML{at}: {error.problem}")
    except (yaml.YAMLError, RecursionError, TypeError, ValueError, OverflowError) as error:
        yield BadManifest(where, f"can't be read: {' '.join(str(error).split())}")
    else:
        yield from _items(plain, where)


def _items(document: Any, where: str) -> Iterator[Manifest | BadManifest]:
    if not isinstance(document, dict):
        yield BadManifest(where, f"must be a map with apiVersion and kind, not {document!r:.60}")
        return
    for key in ("apiVersion", "kind"):
        if not isinstance(document.get(key), str) or not document[key]:
            yield BadManifest(where, f"{key}: is missing" if key not in document else f"{key}: must be a string")
            return
    items = document.get("items")
    if document["kind"].endswith("List") and isinstance(items, list):
        for number, item in enumerate(items):
            yield from _items(item, f"{where}, items[{number}]")
    elif not isinstance(document.get("metadata"), dict):
        yield BadManifest(where, "metadata: is missing or not a map")
    else:
        yield Manifest(document, where)


def _count(value: Any, known: dict[int, int] | None = None) -> int:
    """How many values a document has, aliases counted where they stand. Raises ValueError if one contains itself."""
    known = {} if known is None else known
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) in known:
        if known[id(value)] < 0:
            raise ValueError("an alias contains itself")
        return known[id(value)]
    known[id(value)] = -1
    inner = value.values() if isinstance(value, dict) else value
    known[id(value)] = 1 + sum(_count(one, known) for one in inner)
    return known[id(value)]
