"""What a CA is over time: one that signs, others that are trusted, and how the next takes over. Pure.

A new CA is trusted everywhere before it signs anything, and the old one is trusted until it ends: at no time does one
side of a connection have a certificate that the other does not know.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace

from cryptography import x509

from ciliate_hubble.certificates.authority import Pair, make_authority, renew_at


@dataclass(frozen=True)
class Authorities:
    """All CAs of a cluster."""

    signing: Pair
    next: Pair | None = None
    since: datetime.datetime | None = None  # when `next` was made
    trusted: tuple[x509.Certificate, ...] = ()  # besides these two

    @property
    def bundle(self) -> list[x509.Certificate]:
        """What is to be trusted: the one that signs first, each once."""
        next_ = [self.next.certificate] if self.next is not None else []
        return list(dict.fromkeys([self.signing.certificate, *next_, *self.trusted]))


@dataclass(frozen=True)
class Lives:
    """How long things last."""

    authority: datetime.timedelta
    leaf: datetime.timedelta
    handover: datetime.timedelta  # from a next CA's making to its first signature: everybody must know it by then


def advance(known: Authorities | None, now: datetime.datetime, lives: Lives) -> Authorities:
    """The CAs as they should be now; the same object if nothing is due."""
    if known is None:
        return Authorities(make_authority(now, lives.authority))
    if known.signing.certificate.not_valid_after_utc <= now:
        return Authorities(known.next or make_authority(now, lives.authority))
    valid = tuple(certificate for certificate in known.trusted if certificate.not_valid_after_utc > now)
    if valid != known.trusted:
        known = replace(known, trusted=valid)
    if known.next is None:
        if now < renew_at(known.signing.certificate):
            return known
        return replace(known, next=make_authority(now, lives.authority), since=now)
    if known.since is not None and now < known.since + lives.handover:
        return known
    return Authorities(known.next, trusted=(known.signing.certificate, *known.trusted))


def next_due(known: Authorities, lives: Lives) -> datetime.datetime:
    """When `advance` has something to do next."""
    ends = [certificate.not_valid_after_utc for certificate in (known.signing.certificate, *known.trusted)]
    if known.next is None:
        return min([renew_at(known.signing.certificate), *ends])
    return min([*ends, *([known.since + lives.handover] if known.since is not None else [])])
