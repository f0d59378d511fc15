"""Fixtures of the node tests: labs of this run, each taken down, with nothing left, when it is no longer needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count

import pytest
from ciliate.store import NotFoundError

from tests.node.labs import Lab, reason_not_to_run

_numbers = count(1)


def made(words: tuple[str, ...]) -> Iterator[Lab]:
    """A lab for the life of a fixture; words: of `ciliate lab up`."""
    if reason := reason_not_to_run():
        pytest.skip(reason)
    lab = Lab(f"test-{os.getpid()}-{next(_numbers)}")
    try:
        lab.up(*words)
        yield lab
    finally:
        lab.down()
    assert lab.left() == []


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab of one node, shared by all tests of the run: use pods and policies in a namespace of the test's own."""
    yield from made(())


@pytest.fixture
def make_lab() -> Iterator[Callable[..., Lab]]:
    """A function that starts a lab of the test's own; its arguments are those of `ciliate lab up`."""
    labs: list[Iterator[Lab]] = []

    def make(*words: str) -> Lab:
        labs.append(made(words))
        return next(labs[-1])

    yield make
    for lab in reversed(labs):
        assert next(lab, None) is None


@pytest.fixture
def namespace(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """A Kubernetes namespace of the test's own in the shared lab, emptied afterwards."""
    name = f"t{next(_numbers)}"
    yield name
    pods = [pod["name"] for pod in lab.status()["pods"] if pod["namespace"] == name]
    for pod in pods:
        with suppress(NotFoundError):  # gone since
            lab.remove(pod, namespace=name)
    lab.ciliate("delete", "Namespace", name, check=False)
