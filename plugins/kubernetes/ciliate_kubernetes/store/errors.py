"""The API server's refusals in the words of the store interface: what, where, how to mend it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec
from ciliate.store import (
    AlreadyExistsError,
    ConflictError,
    DeniedError,
    ExpiredError,
    InvalidError,
    MissingKindError,
    NotFoundError,
    StoreError,
    UnavailableError,
)

_RBAC = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
)
_TOO_NEW = "ResourceVersionTooLarge"
_TERMINATING = "NamespaceTerminating"


class Cause(msgspec.Struct):
    """One reason of several."""

    reason: str = ""
    message: str = ""
    field: str = ""


class Details(msgspec.Struct):
    """What a refusal is about."""

    name: str = ""
    kind: str = ""
    causes: list[Cause] | None = None
    retryAfterSeconds: int = 0  # noqa: N815, as the API server spells it


class Status(msgspec.Struct):
    """The API server's object of this name: how it says no."""

    reason: str = ""
    message: str = ""
    code: int = 0
    details: Details | None = None

    @property
    def causes(self) -> list[Cause]:
        """All reasons that it names."""
        return (self.details.causes or []) if self.details is not None else []


@dataclass(frozen=True)
class Asked:
    """What was asked for, in RBAC's words: `list`, `pods`; and of which object, if of one."""

    verb: str
    resource: str
    object: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f" {self.object}" if self.object else "")


_status: msgspec.json.Decoder[Status] = msgspec.json.Decoder(Status)


def parse_status(body: bytes) -> Status | None:
    """The Status in a body, None if it is something else (a proxy's page, `404 page not found`)."""
    try:
        status = _status.decode(body)
    except msgspec.DecodeError:
        return None
    return status if status.code or status.reason or status.message else None


def refusal(asked: Asked, code: int, body: bytes, retry_after: float = 0.0) -> StoreError:
    """The store's error for an answer that is no success. retry_after: seconds that its header asks for."""
    status = parse_status(body)
    if status is None and code == 404:
        return MissingKindError(f"can't {asked}: the API server has no such resource")
    text = body[:200].decode(errors="replace").strip() if status is None else ""
    error = of_status(asked, status or Status(message=text), code)
    if isinstance(error, UnavailableError):
        error.retry_after = retry_after or _seconds_of(status)
    return error


def of_status(asked: Asked, status: Status, code: int) -> StoreError:
    """The store's error for a Status, whether it is an answer or comes in the middle of a watch."""
    message = status.message or status.reason or f"HTTP {code}"
    if code == 401:
        return DeniedError(f"can't {asked}: the API server does not accept these credentials ({message})")
    if code == 403:
        return _forbidden(asked, status, message)
    if code == 404:
        return NotFoundError(f"{asked.resource} {asked.object} not found" if asked.object else message)
    if code == 409:
        return _conflict(asked, status, message)
    if code == 410 or any(cause.reason == _TOO_NEW for cause in status.causes):
        return ExpiredError(f"{asked.resource}: {message}: list again")
    if code == 422 and status.causes and all(cause.field == "metadata.uid" for cause in status.causes):
        return ConflictError(f"can't {asked}: it was deleted and made anew, and has another uid; read it again")
    if code in (400, 405, 406, 413, 415, 422):
        return InvalidError(f"can't {asked}: {_invalid(status, message)}")
    if code == 429:
        return UnavailableError(f"can't {asked}: the API server has too much to do ({message})")
    return UnavailableError(f"can't {asked}: the API server fails with {code}: {message}")


def _forbidden(asked: Asked, status: Status, message: str) -> StoreError:
    lack = _RBAC.search(message)
    if lack is None:  # admission, a quota, a namespace that is going away: nothing that trying again would mend
        return InvalidError(f"can't {asked}: {message}")
    group = lack["group"]
    resource = f"{lack['resource']}.{group}" if group else lack["resource"]
    return DeniedError(
        f"can't {asked}: {lack['user']} lacks the right to {lack['verb']} {resource}; grant verb {lack['verb']!r} on"
        f" resource {lack['resource']!r} of API group {group!r} in its ClusterRole or Role"
    )


def _conflict(asked: Asked, status: Status, message: str) -> StoreError:
    if status.reason == "AlreadyExists":
        return AlreadyExistsError(f"{asked.resource} {asked.object} already exists")
    return ConflictError(f"can't {asked}: {message}; read it again")


def _invalid(status: Status, message: str) -> str:
    """The paths that are wrong, if the server names them."""
    named = [f"{cause.field}: {cause.message}" for cause in status.causes if cause.field and cause.field != "<nil>"]
    return "; ".join(named) or message


def _seconds_of(status: Status | None) -> float:
    return float(status.details.retryAfterSeconds) if status is not None and status.details is not None else 0.0
