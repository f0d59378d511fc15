"""A store in a temporary folder, and objects to put into it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ciliate.store import Object
from ciliate_store_local.driver import LocalStore

from tests.contracts.store import KINDS

OpenStore = Callable[..., LocalStore]


def pod(name: str, namespace: str = "default", **spec: Any) -> Object:
    """A pod object."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The database's path; its folder does not exist yet."""
    return tmp_path / "state" / "store.db"


@pytest.fixture
async def open_store(path: Path) -> AsyncIterator[OpenStore]:
    """Opens stores on `path`, each as another process would see it; all are closed at the end."""
    opened: list[LocalStore] = []

    def open_one(**options: Any) -> LocalStore:
        opened.append(LocalStore({"path": str(path), **options}, KINDS))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Iterator[LocalStore]:
    """One store."""
    yield open_store()
