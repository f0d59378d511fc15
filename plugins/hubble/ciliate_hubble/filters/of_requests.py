"""What the fields of FlowFilter mean that ask what a request says: tests of L7 records."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from ciliate.model.l7 import HttpRecord

from ciliate_hubble.api.flow_pb2 import HTTPHeader
from ciliate_hubble.filters.field import Field, Meaning
from ciliate_hubble.filters.patterns import PatternError, expression
from ciliate_hubble.filters.predicates import L7Predicate, Predicate

Test = Callable[[HttpRecord], bool]


def status_code(text: str) -> Test:
    """`404` exactly, or `4+`, `40+` by its beginning."""
    if re.fullmatch(r"[1-5]\d\d", text):
        return lambda http: http.code == int(text)
    if re.fullmatch(r"[1-5]\d?\+", text):
        return lambda http: str(http.code).startswith(text[:-1]) and http.code >= 100
    raise ValueError(f"{text!r} is no status code: write three digits, or its beginning and +, as 404, 40+ or 5+")


def method(text: str) -> Test:
    """In whatever case."""
    return lambda http: http.method.lower() == text.lower()


def path(text: str) -> Test:
    """A regular expression somewhere in the URL's path."""
    matches = expression(text)
    return lambda http: matches(path_of(http.url))


def url(text: str) -> Test:
    """A regular expression somewhere in the URL."""
    matches = expression(text)
    return lambda http: matches(http.url)


def header(wanted: HTTPHeader) -> Test:
    """Name and value exactly."""
    return lambda http: any(h.name == wanted.key and h.value == wanted.value for h in http.headers)


def path_of(url: str) -> str:
    """A URL's path; of what is no URL, nothing."""
    try:
        return urlsplit(url).path
    except ValueError:
        return ""


def _dns_queries(field: Field) -> Predicate:
    matches = field.each(expression, PatternError)
    return L7Predicate(
        field.tables, lambda entry: entry.record.dns is not None and any(m(entry.record.dns.query) for m in matches)
    )


def _http(make: Callable[[Any], Test]) -> Meaning:
    def meaning(field: Field) -> Predicate:
        tests = field.each(make, ValueError)
        return L7Predicate(
            field.tables, lambda entry: entry.record.http is not None and any(t(entry.record.http) for t in tests)
        )

    return meaning


MEANINGS: dict[str, Meaning] = {
    "dns_query": _dns_queries,
    "http_status_code": _http(status_code),
    "http_method": _http(method),
    "http_path": _http(path),
    "http_url": _http(url),
    "http_header": _http(header),
}
