"""The local store keeps what the interface promises."""

from __future__ import annotations

import pytest

from tests.contracts.store import StoreContract


@pytest.fixture
def space() -> str:
    """Namespaces need not exist here."""
    return "shop"


class TestLocalStore(StoreContract):
    """See `StoreContract`."""
