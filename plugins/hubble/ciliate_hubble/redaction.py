"""What of L7 records is not to be seen: parts of URLs, values of headers. Done before a record is kept."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import msgspec
from ciliate.model.l7 import HttpHeader, HttpRecord, L7Record

from ciliate_hubble.config import HubbleConfig

REDACTED = "HUBBLE_REDACTED"


class Redaction:
    """By the section's keys `redact_*`."""

    def __init__(self, config: HubbleConfig) -> None:
        self._enabled = config.redact_enabled
        self._query = config.redact_http_urlquery
        self._userinfo = config.redact_http_userinfo
        self._allow = frozenset(name.lower() for name in config.redact_http_headers_allow)
        self._deny = frozenset(name.lower() for name in config.redact_http_headers_deny)

    def redacted(self, record: L7Record) -> L7Record:
        """The record without what must not be seen."""
        if not self._enabled or record.http is None:
            return record
        http = record.http
        headers = tuple(
            HttpHeader(name=header.name, value=header.value if self._shows(header.name) else REDACTED)
            for header in http.headers
        )
        return msgspec.structs.replace(record, http=_with(http, self._url(http.url), headers))

    def _shows(self, name: str) -> bool:
        if self._allow:
            return name.lower() in self._allow
        return bool(self._deny) and name.lower() not in self._deny

    def _url(self, url: str) -> str:
        try:
            parts = urlsplit(url)
        except ValueError:
            return REDACTED  # what can't be taken apart may hide anything
        user, separator, host = parts.netloc.rpartition("@")
        if separator and self._userinfo and ":" in user:
            parts = parts._replace(netloc=f"{user.partition(':')[0]}:{REDACTED}@{host}")
        if self._query:
            parts = parts._replace(query="", fragment="")
        return urlunsplit(parts)


def _with(http: HttpRecord, url: str, headers: tuple[HttpHeader, ...]) -> HttpRecord:
    return msgspec.structs.replace(http, url=url, headers=headers)
