"""The API server's driver keeps what the interface promises."""

from __future__ import annotations

from tests.contracts.store import StoreContract


class TestKubernetesStore(StoreContract):
    """See `StoreContract`."""
