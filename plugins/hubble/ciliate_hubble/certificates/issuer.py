"""The operator's part: keeps the CA and the certificates that it signs in the store, and renews them in time.

Any number of issuers may be at work: each Secret is written on condition that nobody else has meanwhile, so the first
to write decides, and the others take what they find.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterable
from contextlib import aclosing

from ciliate.health import Health
from ciliate.store import (
    AlreadyExistsError,
    ConflictError,
    InvalidError,
    NotFoundError,
    Object,
    Store,
    StoreError,
    follow,
)
from structlog.stdlib import BoundLogger

from ciliate_hubble.certificates import authority, secrets
from ciliate_hubble.certificates.authority import CertificateError, Pair
from ciliate_hubble.certificates.names import CA_SECRET, Leaf
from ciliate_hubble.certificates.rotation import Authorities, Lives, advance, next_due
from ciliate_hubble.certificates.secrets import SECRET, SecretError

LOOK = 3600.0
"""Seconds between two looks when nothing is due before: somebody may set the clock."""
RETRY = 1.0
CONDITION = "certificates"


class Issuer:
    """Makes and renews the Secrets of one cluster."""

    def __init__(
        self, store: Store, namespace: str, leaves: Iterable[Leaf], lives: Lives, health: Health, log: BoundLogger
    ) -> None:
        self._store = store
        self._namespace = namespace
        self._leaves = tuple(leaves)
        self._lives = lives
        self._health = health
        self._log = log
        self._changed = asyncio.Event()
        self.secrets = (CA_SECRET, *(leaf.secret for leaf in self._leaves))
        self.ends: dict[str, datetime.datetime] = {}  # of each Secret's certificate, as far as known
        health.not_ready("the certificates have not been looked at yet", CONDITION)

    async def run(self) -> None:
        """Keep the Secrets as they should be, for ever."""
        async with asyncio.TaskGroup() as group:
            for name in self.secrets:
                group.create_task(self._watch(name))
            while True:
                self._changed.clear()
                wait = await self._look()
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    async def ensure(self, now: datetime.datetime) -> datetime.datetime:
        """Make and renew what is due. When something is due next. Raises StoreError, SecretError."""
        known = await self._ensure_authority(now)
        due = next_due(known, self._lives)
        for leaf in self._leaves:
            due = min(due, await self._ensure_leaf(leaf, known, now))
        return due

    async def _look(self) -> float:
        """Ensure, and the seconds until the next time; what is in the way is said in health and tried again."""
        try:
            due = await self.ensure(_now())
        except (StoreError, SecretError) as error:
            self._health.not_ready(str(error), CONDITION)
            self._log.warning("certificates can't be kept", reason=str(error))
            return RETRY if isinstance(error, StoreError) and not isinstance(error, InvalidError) else LOOK
        self._health.ready(CONDITION)
        return min(LOOK, max(0.0, (due - _now()).total_seconds()))

    async def _watch(self, name: str) -> None:
        changes = follow(self._store, SECRET, self._namespace, {"metadata.name": name})
        async with aclosing(changes) as followed:  # type: ignore[type-var]
            async for _ in followed:
                self._changed.set()

    async def _ensure_authority(self, now: datetime.datetime) -> Authorities:
        while True:
            secret = await self._get(CA_SECRET)
            known = read_authorities(secret) if secret is not None else None
            wanted = advance(known, now, self._lives)
            if wanted is known or await self._write(secret, write_authorities(self._namespace, wanted)):
                self.ends[CA_SECRET] = wanted.signing.certificate.not_valid_after_utc
                return wanted

    async def _ensure_leaf(self, leaf: Leaf, known: Authorities, now: datetime.datetime) -> datetime.datetime:
        """Make or renew one certificate; a change of the trusted CAs alone keeps it. When it is due next."""
        bundle = authority.to_pem(known.bundle)
        while True:
            secret = await self._get(leaf.secret)
            data = _leaf_data(secret) if secret is not None else {}
            pem, key = data.get(secrets.CERTIFICATE, b""), data.get(secrets.KEY, b"")
            why = authority.flaw(pem, key, known.signing, leaf, now) if secret is not None else "there is none yet"
            if why:
                pair = authority.issue(known.signing, leaf, now, self._lives.leaf)
                pem, key = pair.certificate_pem, pair.key_pem
            certificate = authority.read_certificates(pem)[0]
            if why or data.get(secrets.AUTHORITIES) != bundle:
                made = {secrets.CERTIFICATE: pem, secrets.KEY: key, secrets.AUTHORITIES: bundle}
                if not await self._write(
                    secret, secrets.make_secret(self._namespace, leaf.secret, made, "kubernetes.io/tls")
                ):
                    continue
                self._log.info("certificate written", secret=leaf.secret, reason=why or "other CAs are trusted")
            self.ends[leaf.secret] = certificate.not_valid_after_utc
            return authority.renew_at(certificate)

    async def _get(self, name: str) -> Object | None:
        try:
            return await self._store.get(SECRET, name, self._namespace)
        except NotFoundError:
            return None

    async def _write(self, old: Object | None, new: Object) -> bool:
        """Create, or replace what was read; False if somebody else was first. Other labels and annotations stay."""
        try:
            if old is None:
                await self._store.create(new)
            else:
                await self._store.update(_merged(old, new))
        except (AlreadyExistsError, ConflictError, NotFoundError):
            return False
        return True


def read_authorities(secret: Object) -> Authorities:
    """The CAs of the Secret `cilium-ca`, which may be one that Cilium or a user made. Raises SecretError."""
    data = secrets.read_data(secret, secrets.CA_CERTIFICATES, secrets.CA_KEY, secrets.NEXT_KEY)
    mend = "put a CA's certificate and key there, or delete the Secret to have a new CA made"
    try:
        certificates = authority.read_certificates(data[secrets.CA_CERTIFICATES])
        key = authority.read_key(data[secrets.CA_KEY])
        next_key = authority.read_key(data[secrets.NEXT_KEY]) if data[secrets.NEXT_KEY] else None
    except CertificateError as error:
        raise SecretError(f"{secrets.called(secret)} {error}; {mend}") from None
    signing = next((one for one in certificates if authority.matches(one, key)), None)
    if signing is None:
        raise SecretError(f"{secrets.called(secret)}: ca.key is the key of no certificate in ca.crt; {mend}")
    next_ = next((one for one in certificates if next_key is not None and authority.matches(one, next_key)), None)
    pair = Pair(next_, next_key) if next_ is not None and next_key is not None else None
    since = _since(secret) if pair is not None else None
    others = tuple(one for one in certificates if one not in (signing, next_))
    return Authorities(Pair(signing, key), pair, since, others)


def write_authorities(namespace: str, known: Authorities) -> Object:
    """The Secret `cilium-ca` that holds them."""
    data = {secrets.CA_CERTIFICATES: authority.to_pem(known.bundle), secrets.CA_KEY: known.signing.key_pem}
    annotations = {}
    if known.next is not None and known.since is not None:
        data[secrets.NEXT_KEY] = known.next.key_pem
        annotations[secrets.NEXT_SINCE] = known.since.isoformat()
    return secrets.make_secret(namespace, CA_SECRET, data, "Opaque", annotations)


def _since(secret: Object) -> datetime.datetime | None:
    text = (secret["metadata"].get("annotations") or {}).get(secrets.NEXT_SINCE, "")
    try:
        since = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return since if since.tzinfo is not None else since.replace(tzinfo=datetime.UTC)


def _leaf_data(secret: Object) -> dict[str, bytes]:
    """What a leaf's Secret holds; nothing if it can't be read: it is made anew."""
    try:
        return secrets.read_data(secret, secrets.CERTIFICATE, secrets.KEY, secrets.AUTHORITIES)
    except SecretError:
        return {}


def _merged(old: Object, new: Object) -> Object:
    """`new` in place of `old`, with the metadata that others gave it. A Secret's type can't be changed."""
    meta, wanted = dict(old["metadata"]), new["metadata"]
    meta["labels"] = {**(meta.get("labels") or {}), **wanted["labels"]}
    annotations = {k: v for k, v in (meta.get("annotations") or {}).items() if k != secrets.NEXT_SINCE}
    meta["annotations"] = {**annotations, **wanted.get("annotations", {})}
    return {**new, "type": old.get("type", new["type"]), "metadata": meta}


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
