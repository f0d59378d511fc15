"""The agent's part: it waits for the kinds that it needs, and says which are missing."""

from __future__ import annotations

import asyncio

from ciliate.backoff import Backoff
from ciliate.context import Context
from ciliate.model.kinds import (
    CILIUM_CIDR_GROUP,
    CILIUM_CLUSTERWIDE_NETWORK_POLICY,
    CILIUM_ENDPOINT,
    CILIUM_IDENTITY,
    CILIUM_NETWORK_POLICY,
    CILIUM_NODE,
)
from ciliate.store import DeniedError, Kind, StoreError, UnavailableError

NEEDED = (
    CILIUM_NODE,
    CILIUM_IDENTITY,
    CILIUM_ENDPOINT,
    CILIUM_NETWORK_POLICY,
    CILIUM_CLUSTERWIDE_NETWORK_POLICY,
    CILIUM_CIDR_GROUP,
)
CONDITION = "definitions"


class Waiting:
    """Asks for an object of each kind that there never is, until all kinds are served."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self) -> None:
        """Ends when all are there; who reads the kinds goes on by itself."""
        backoff = Backoff(0.2, 5.0)
        said = ""
        while missing := await self._missing():
            text = f"{', '.join(missing)}: not known to be registered; does the operator run?"
            self._context.health.not_ready(text, CONDITION)
            if text != said:
                self._context.log.warning("waits for custom resource definitions", missing=missing)
                said = text
            await backoff.wait()
        if said:
            self._context.log.info("custom resource definitions are there")
        self._context.health.ready(CONDITION)

    async def _missing(self) -> list[str]:
        answers = await asyncio.gather(*map(self._is_served, NEEDED))
        return [kind.plural for kind, served in zip(NEEDED, answers, strict=True) if not served]

    async def _is_served(self, kind: Kind) -> bool:
        try:
            await self._context.store.list(kind.only("metadata.name"), fields={"metadata.name": "none"})
        except DeniedError:
            return True  # whoever reads the kind says what right is lacking
        except UnavailableError:
            return False
        except StoreError:
            return True
        return True
