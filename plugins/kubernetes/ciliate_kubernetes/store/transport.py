"""Requests to the API server: with credentials that are fresh, answered in time, or refused in the store's words."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import structlog
from ciliate import __version__
from ciliate.store import UnavailableError
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from yarl import URL

from ciliate_kubernetes.store.config import Options
from ciliate_kubernetes.store.credentials import Credentials
from ciliate_kubernetes.store.errors import refusal
from ciliate_kubernetes.store.lines import CutError, lines
from ciliate_kubernetes.store.requests import JSON, Request

log = structlog.get_logger("store")

_TOO_MANY, _UNAUTHORIZED = 429, 401
_Answer = tuple[int, bytes, str | None]
"""Code, body, and the header Retry-After."""
_FIRST_PATIENCE = 0.5
_PROXIES = ("https_proxy", "http_proxy", "all_proxy")
_LOOK_AGAIN = 1.0


class Session(RESTClientObject):
    """Connections made with one state of the credentials. Closed when they are old and nobody uses them."""

    def __init__(self, configuration: Configuration, authorization: str | None) -> None:
        # Only for a proxy: aiohttp would look for a password in ~/.netrc too, in a thread, before each request.
        configuration.client_session_kwargs = {"trust_env": any(name.lower() in _PROXIES for name in os.environ)}
        super().__init__(configuration)
        self.host = str(configuration.host)
        self.pool_manager = self._create_pool_manager()
        # What the server would compress is larger than the time that it takes is worth, on both sides.
        self._headers = {"Accept": JSON, "Accept-Encoding": "identity", "User-Agent": f"ciliate/{__version__}"}
        if authorization:
            self._headers["Authorization"] = authorization
        self.users = 0
        self.old = False

    def send(self, request: Request, timeout: aiohttp.ClientTimeout) -> Any:
        """The context manager of a response."""
        assert self.pool_manager is not None
        options: dict[str, Any] = {"proxy": self.proxy} if self.proxy else {}
        if self.configuration.tls_server_name:
            options["server_hostname"] = self.configuration.tls_server_name
        headers = {**self._headers, "Content-Type": request.content_type} if request.body else self._headers
        url = URL(self.host + request.target, encoded=True)
        return self.pool_manager.request(
            request.method, url, data=request.body, headers=headers, timeout=timeout, allow_redirects=False, **options
        )


class Patience:
    """How long a request may take in all, with a server that asks to come back later."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._pause = _FIRST_PATIENCE

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(0.001, self._deadline - time.monotonic())

    async def bear(self, request: Request, code: int, body: bytes, wait: str | None) -> None:
        """Wait, if that is what the server wants and there is time. Otherwise raises the refusal."""
        asked = float(wait) if wait and wait.isdigit() else 0.0
        if not asked:
            self._pause *= 2
        pause = (asked or self._pause) * random.uniform(1.0, 1.2)
        if code != _TOO_MANY or pause > self.left:
            raise refusal(request.asked, code, body, asked)
        await asyncio.sleep(pause)


class Transport:
    """All requests of one process. Begins a new session when credentials have changed; what runs ends in the old."""

    def __init__(self, options: Options, answered: Callable[[Request, str, int, float], None]) -> None:
        """answered: told of each request the server's host, the answer's code (0: none), and seconds until it began."""
        self._options = options
        self._answered = answered
        self._credentials = Credentials(options)
        self._session: Session | None = None
        self._next_look = 0.0
        self._renewing = asyncio.Lock()
        self._closed = False

    async def call(self, request: Request) -> bytes:
        """The body of an answer. Raises StoreError."""
        patience = Patience(self._options.request_timeout)
        while True:
            code, body, wait = await self._call_once(request, patience.left)
            if code < 300:
                return body
            await patience.bear(request, code, body, wait)

    async def _call_once(self, request: Request, seconds: float) -> _Answer:
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=self._options.connect_timeout)
        for last in (False, True):
            async with self._leased() as session:
                try:
                    async with self._sent(session, request, timeout) as response:
                        answer = await _read(response)
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    raise _unreachable(session, error) from error
            if answer[0] != _UNAUTHORIZED or last:
                break
            await self._renew(session)
        return answer

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of an answer, while they come. Raises StoreError."""
        silent, connect = self._options.silent_seconds, self._options.connect_timeout
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=silent)
        patience = Patience(self._options.request_timeout)
        while True:
            async with self._leased() as session:
                try:
                    async with self._sent(session, request, timeout) as response:
                        if response.status < 300:
                            yield lines(response.content)
                            return
                        answer = await _read(response)
                except aiohttp.SocketTimeoutError as error:
                    raise UnavailableError(f"nothing was heard from {session.host} for {silent:g} s") from error
                except (aiohttp.ClientError, CutError, TimeoutError, OSError) as error:
                    raise _unreachable(session, error) from error
            if answer[0] == _UNAUTHORIZED:
                await self._renew(session)
            await patience.bear(request, *answer)

    @asynccontextmanager
    async def _sent(
        self, session: Session, request: Request, timeout: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response to a request; it is counted."""
        began, code = time.monotonic(), 0
        try:
            async with session.send(request, timeout) as response:
                code = response.status
                self._answered(request, session.host, code, time.monotonic() - began)
                yield response
        finally:
            if not code:
                self._answered(request, session.host, 0, time.monotonic() - began)

    @asynccontextmanager
    async def _leased(self) -> AsyncIterator[Session]:
        """The present session, which stays open until it is given back."""
        session = await self._fresh()
        session.users += 1
        try:
            yield session
        finally:
            session.users -= 1
            await _close_if_done(session)

    async def _fresh(self) -> Session:
        """A session with the credentials as they are now."""
        if self._closed:
            raise UnavailableError("the store is closed in this process")
        session = self._session
        if session is not None and time.monotonic() < self._next_look:
            return session
        self._next_look = time.monotonic() + self._options.credentials_seconds
        if session is None:
            return await self._renew(None)
        if self._credentials.changed():
            try:
                return await self._renew(session)
            except UnavailableError as error:  # half written: those that we have may well be good for a while
                self._next_look = time.monotonic() + _LOOK_AGAIN
                log.warning("credentials have changed and can't be read", reason=str(error))
        return session

    async def _renew(self, stale: Session | None) -> Session:
        """Replace a session by one with credentials read anew, unless somebody else just has."""
        async with self._renewing:
            if self._session is not None and self._session is not stale:
                return self._session
            configuration = await self._credentials.load()
            authorization = await configuration.get_api_key_with_prefix("BearerToken")
            try:
                self._session = Session(configuration, authorization)
            except (OSError, ValueError) as error:  # a certificate that is half written, or none
                self._credentials.forget()
                raise UnavailableError(f"no credentials in {self._credentials.source}: {error}") from error
            if stale is not None:
                log.info("credentials were read anew", source=self._credentials.source)
                stale.old = True
                await _close_if_done(stale)
            return self._session

    async def close(self) -> None:
        """Let go of all connections; what still runs fails."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def _read(response: aiohttp.ClientResponse) -> _Answer:
    return response.status, await response.read(), response.headers.get("Retry-After")


async def _close_if_done(session: Session) -> None:
    if session.old and session.users == 0:
        await session.close()


def _unreachable(session: Session, error: BaseException) -> UnavailableError:
    reason = str(error) or type(error).__name__
    return UnavailableError(f"the API server at {session.host} does not answer: {reason}")
