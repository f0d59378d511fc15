"""One lab of two nodes for all tests of this folder, with a pair of pods on each node, and readers of its relay."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.node.conftest import made
from tests.node.labs import Lab
from tests.node.relay.reader import Reader
from tests.node.relay.traffic import Pair

MakeReader = Callable[..., Reader]


@pytest.fixture(scope="package")
def cluster() -> Iterator[Lab]:
    """Each test leaves it ready, with both nodes connected."""
    yield from made(("--nodes", "2"))


@pytest.fixture(scope="package")
def pairs(cluster: Lab) -> list[Pair]:
    """A pair of pods on node1, and one on node2: nodes do not reach each other's pods."""
    return [Pair.run(cluster, f"node{number}") for number in (1, 2)]


@pytest.fixture
def read(cluster: Lab) -> Iterator[MakeReader]:
    """Makes readers; those of the test end with it."""
    readers: list[Reader] = []

    def make(**request: object) -> Reader:
        readers.append(Reader(cluster.status()["relay"]["server"], **request))
        return readers[-1]

    yield make
    for reader in readers:
        reader.close()
