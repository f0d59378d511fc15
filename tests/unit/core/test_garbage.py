"""What has outlived a search for garbage is not looked at again, but once in a while."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from ciliate import garbage


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The process's collector, as it was."""
    yield
    gc.callbacks.remove(garbage._mind)
    gc.unfreeze()


class Node:
    """Something that leads back to itself."""

    def __init__(self) -> None:
        self.own: Any = self


def test_survivors_are_spared_until_it_is_time_to_rethink(monkeypatch: pytest.MonkeyPatch) -> None:
    garbage.spare_the_old()
    garbage.spare_the_old()
    assert gc.callbacks.count(garbage._mind) == 1
    node = Node()
    gc.collect()
    spared = gc.get_freeze_count()
    assert spared > 1000 and not any(isinstance(found, Node) for found in gc.get_objects())
    fresh = Node()
    del fresh
    assert gc.collect() >= 1, "what is new is looked at"
    del node
    gc.collect()
    assert gc.get_freeze_count() >= spared, "its cycle waits"
    monkeypatch.setattr(garbage, "_due", 0.0)
    assert gc.collect() >= 1
