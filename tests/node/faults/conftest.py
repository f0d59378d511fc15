"""Fixtures of the fault tests: one lab with the pods of the steady traffic, for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.node.faults.steady import Cast, Steady, assemble
from tests.node.labs import Lab, until


@pytest.fixture(scope="package")
def cast(lab: Lab) -> Cast:
    """The pods of the steady traffic."""
    return assemble(lab)


@pytest.fixture
def steady(cast: Cast, tmp_path: Path) -> Callable[..., Steady]:
    """Steady traffic, to be begun by `with`."""
    return lambda **options: Steady(cast, tmp_path / "steady", **options)


@pytest.fixture(autouse=True)
def ready(lab: Lab) -> Iterator[None]:
    """Every fault ends with the lab ready."""
    yield
    until(lambda: lab.status()["ready"], 60, "the lab, ready again")
