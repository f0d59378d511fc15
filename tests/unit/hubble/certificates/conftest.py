"""A store for Secrets, and what an issuer needs besides."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import structlog
from ciliate.health import Health
from ciliate_hubble.certificates.issuer import Issuer
from ciliate_hubble.certificates.names import leaves
from ciliate_hubble.certificates.rotation import Lives
from ciliate_hubble.certificates.secrets import SECRET
from ciliate_store_local.driver import LocalStore

DAY = datetime.timedelta(days=1)
LIVES = Lives(authority=900 * DAY, leaf=90 * DAY, handover=DAY)
NAMESPACE = "kube-system"
MakeIssuer = Callable[..., Issuer]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    """A store that knows Secrets."""
    opened = LocalStore({"path": str(tmp_path / "store.db")}, (SECRET,))
    yield opened
    await opened.close()


@pytest.fixture
def make_issuer(store: LocalStore) -> MakeIssuer:
    """Makes issuers for the cluster `default`."""

    def make(lives: Lives = LIVES, cluster: str = "default", on: LocalStore = store) -> Issuer:
        return Issuer(on, NAMESPACE, leaves(cluster), lives, Health("hubble"), structlog.get_logger("hubble"))

    return make
