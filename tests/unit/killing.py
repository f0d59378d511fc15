"""A store whose user is killed at its n-th write: before it, or after it but before it has heard so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ciliate_store_local.driver import LocalStore


class KilledError(BaseException):
    """The end of the process: no `except Exception` of it goes on."""


class MortalStore(LocalStore):
    """Writes `left` times; the next is the end, done (`heard` False) or not."""

    left = 1_000_000
    heard = True

    def doom(self, left: int, heard: bool) -> None:
        """Let so many writes through."""
        self.left, self.heard = left, heard

    async def _mortal(self, write: Callable[..., Awaitable[Any]], *arguments: Any, **more: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            if not self.heard:
                await write(*arguments, **more)
            raise KilledError
        return await write(*arguments, **more)

    async def create(self, *arguments: Any, **more: Any) -> Any:
        return await self._mortal(super().create, *arguments, **more)

    async def update(self, *arguments: Any, **more: Any) -> Any:
        return await self._mortal(super().update, *arguments, **more)

    async def update_status(self, *arguments: Any, **more: Any) -> Any:
        return await self._mortal(super().update_status, *arguments, **more)

    async def patch(self, *arguments: Any, **more: Any) -> Any:
        return await self._mortal(super().patch, *arguments, **more)

    async def apply(self, *arguments: Any, **more: Any) -> Any:
        return await self._mortal(super().apply, *arguments, **more)

    async def delete(self, *arguments: Any, **more: Any) -> Any:
        return await self._mortal(super().delete, *arguments, **more)
