"""Reading a manifest with the path of every value at hand, so that each problem says where it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from ciliate.review import Finding, Severity

T = TypeVar("T")


class InvalidFieldError(ValueError):
    """A value that Cilium or Kubernetes would refuse; the text is `path: what is wrong and how to mend it`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.finding = Finding(path, message, Severity.INVALID)


class Findings:
    """What was found while an object was read."""

    def __init__(self) -> None:
        self.found: list[Finding] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Note a problem inside and go on after it, so that one reading names them all."""
        try:
            yield
        except InvalidFieldError as error:
            self.found.append(error.finding)

    def invalid(self, path: str, message: str) -> None:
        """Note a problem."""
        self.found.append(Finding(path, message, Severity.INVALID))

    def unsupported(self, path: str, message: str) -> None:
        """Note an element that is known but not enforced yet."""
        self.found.append(Finding(path, message, Severity.UNSUPPORTED))

    @property
    def refused(self) -> bool:
        """Whether anything invalid was found."""
        return any(found.severity is Severity.INVALID for found in self.found)


class Node:
    """A value in a manifest and its path."""

    def __init__(self, value: Any, path: str, findings: Findings) -> None:
        self.value = value
        self.path = path
        self.findings = findings

    def refuse(self, message: str) -> NoReturn:
        """Raise InvalidFieldError about this value."""
        raise InvalidFieldError(self.path, message)

    def fields(self, known: Collection[str]) -> dict[str, Node]:
        """The fields of an object. A null is as good as absent; an unknown field is noted as a problem."""
        fields = self.any_fields()
        for name, node in fields.items():
            if name not in known:
                hint = _nearest(name, known)
                self.findings.invalid(node.path, f"there is no such field{f'; did you mean {hint}?' if hint else ''}")
        return fields

    def any_fields(self) -> dict[str, Node]:
        """The fields of an object whatever they are called."""
        if not isinstance(self.value, dict):
            self.refuse(f"must be an object, not {_kind(self.value)}")
        for name in self.value:
            if not isinstance(name, str):
                self.refuse(f"has the field name {name!r}, which must be a string")
        return {
            name: Node(value, f"{self.path}.{name}" if self.path else name, self.findings)
            for name, value in self.value.items()
            if value is not None
        }

    def items(self, limit: int = 0) -> list[Node]:
        """The elements of a list of at most `limit` (0: any number)."""
        if not isinstance(self.value, list):
            self.refuse(f"must be a list, not {_kind(self.value)}")
        if limit and len(self.value) > limit:
            self.refuse(f"has {len(self.value)} elements; {limit} are allowed")
        return [Node(value, f"{self.path}[{index}]", self.findings) for index, value in enumerate(self.value)]

    def each(self, read: Callable[[Node], T], limit: int = 0) -> list[T]:
        """The elements of a list, read; a problem in one is noted and the others are read all the same."""
        result: list[T] = []
        for item in self.items(limit):
            with self.findings.collect():
                result.append(read(item))
        return result

    def text(self) -> str:
        """A string."""
        if not isinstance(self.value, str):
            self.refuse(f"must be a string, not {_kind(self.value)}{_quoted(self.value)}")
        return self.value

    def choice(self, allowed: Collection[str]) -> str:
        """A string out of a few."""
        if self.text() not in allowed:
            self.refuse(f"{self.value!r} is unknown; use one of {', '.join(sorted(allowed))}")
        return self.text()

    def integer(self) -> int:
        """A whole number."""
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            self.refuse(f"must be a whole number, not {_kind(self.value)}")
        return self.value

    def boolean(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            self.refuse(f"must be true or false, not {_kind(self.value)}")
        return self.value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null" if value is None else type(value).__name__)


def _quoted(value: Any) -> str:
    return f': write "{value}"' if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _nearest(name: str, known: Collection[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return close[0] if close else ""
