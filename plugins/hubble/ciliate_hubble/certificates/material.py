"""What one process proves itself with, and whom it trusts: read from its own Secret, or from files; always current.

No `cryptography` here: this is in every node's server. OpenSSL checks what is read before it is used.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ciliate.health import Health
from ciliate.store import Store, follow
from structlog.stdlib import BoundLogger

from ciliate_hubble.certificates.secrets import AUTHORITIES, CERTIFICATE, KEY, SECRET, SecretError, called, read_data

LOOK = 1.0
"""Seconds between two looks at files."""


class MaterialError(Exception):
    """A certificate, key or CA that can't be used; the message says which and why, and quotes no key."""


@dataclass(frozen=True)
class Material:
    """PEM texts: a chain of certificates and its key (both empty: only for trusting), and the CAs to trust."""

    certificate: bytes
    key: bytes = field(repr=False)
    authorities: bytes

    def check(self) -> None:
        """Raises MaterialError if grpc could not use it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=self.authorities.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise MaterialError(f"the CAs are not PEM certificates: {error}") from None
        if not self.certificate and not self.key:
            return
        with _memory_file(self.certificate) as certificate, _memory_file(self.key) as key:
            try:
                context.load_cert_chain(certificate, key, password=_no_password)
            except (ssl.SSLError, ValueError) as error:
                raise MaterialError(f"certificate and key are no pair in PEM: {error}") from None


class Keeper(Protocol):
    """Where material comes from."""

    @property
    def current(self) -> Material | None:
        """The newest that can be used; None until there is one."""

    async def run(self) -> None:
        """Keep `current` true, for ever."""

    async def changed(self, known: Material | None) -> Material:
        """Wait until there is material other than `known`."""


class Holder:
    """Keeps the newest material that can be used, and says in health what there is none for."""

    def __init__(self, health: Health, condition: str, log: BoundLogger) -> None:
        self.current: Material | None = None
        self._health = health
        self._condition = condition
        self._log = log
        self._news = asyncio.Event()

    async def changed(self, known: Material | None) -> Material:
        """See Keeper."""
        while self.current is None or self.current == known:
            await self._news.wait()
        return self.current

    def take(self, material: Material, origin: str) -> None:
        """Use it, if it is new and can be used; what was there before is kept otherwise."""
        if material == self.current:
            self._health.ready(self._condition)
            return
        try:
            material.check()
        except MaterialError as error:
            self.lack(f"{origin}: {error}")
            return
        self._log.info("certificate taken", origin=origin, renewed=self.current is not None)
        self.current = material
        self._health.ready(self._condition)
        self._news.set()
        self._news = asyncio.Event()

    def lack(self, reason: str) -> None:
        """Say why there is none, or no newer one."""
        if self._health.conditions.get(self._condition) != reason:
            self._log.warning("certificate lacks", reason=reason)
        self._health.not_ready(reason, self._condition)


class SecretKeeper(Holder):
    """Material of one Secret in the store."""

    def __init__(
        self, store: Store, namespace: str, name: str, health: Health, condition: str, log: BoundLogger
    ) -> None:
        super().__init__(health, condition, log)
        self._store = store
        self._namespace = namespace
        self._name = name
        health.not_ready(f"waits for Secret {namespace}/{name}, which the operator makes", condition)

    async def run(self) -> None:
        """See Keeper. A Secret that is deleted takes nothing away: the operator makes it anew."""
        changes = follow(self._store, SECRET, self._namespace, {"metadata.name": self._name})
        async with aclosing(changes) as followed:  # type: ignore[type-var]
            async for change in followed:
                for secret in change.upserts:
                    try:
                        data = read_data(secret, CERTIFICATE, KEY, AUTHORITIES)
                    except SecretError as error:
                        self.lack(str(error))
                        continue
                    self.take(Material(data[CERTIFICATE], data[KEY], data[AUTHORITIES]), called(secret))


@dataclass(frozen=True)
class Files:
    """PEM files, as a mounted Secret has them. Certificate and key may be empty where only trust is wanted."""

    certificate: str = ""
    key: str = ""
    authorities: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.certificate or self.key or self.authorities)

    def read(self) -> Material:
        """What they hold now. Raises OSError."""
        certificate, key = (Path(path).read_bytes() if path else b"" for path in (self.certificate, self.key))
        return Material(certificate, key, b"\n".join(Path(path).read_bytes() for path in self.authorities))


class FileKeeper(Holder):
    """Material of files, looked at once a second: a mounted Secret changes under its readers."""

    def __init__(self, files: Files, health: Health, condition: str, log: BoundLogger) -> None:
        super().__init__(health, condition, log)
        self._files = files

    async def run(self) -> None:
        """See Keeper."""
        origin = ", ".join(filter(None, (self._files.certificate, self._files.key, *self._files.authorities)))
        while True:
            try:
                self.take(self._files.read(), origin)
            except OSError as error:
                self.lack(f"{error.filename} can't be read: {error.strerror}")
            await asyncio.sleep(LOOK)


@contextmanager
def _memory_file(content: bytes) -> Iterator[str]:
    """A path that holds the content for the time of a block, without its ever being on a disk."""
    handle = os.memfd_create("pem")
    try:
        os.write(handle, content)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def _no_password() -> str:
    """Called only for an encrypted key: without it, OpenSSL would ask on the terminal."""
    raise ValueError("the key is encrypted")
