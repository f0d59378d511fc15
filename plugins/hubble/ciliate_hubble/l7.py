"""L7 records of flows in the ring: by number, as long as their flow is there; and what is encoded of them."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ciliate.model.l7 import DnsRecord, HttpRecord, L7Record, L7Type

from ciliate_hubble.encoding import wire

_CODES = (
    "No Error", "Format Error", "Server Failure", "Non-Existent Domain", "Not Implemented", "Query Refused",
    "Name Exists when it should not", "RR Set Exists when it should not", "RR Set that should exist does not",
    "Server Not Authoritative for zone", "Name not contained in zone",
)  # fmt: skip
"""The registry's names of DNS response codes."""
_DNS, _HTTP = 100, 101  # fields of flow.Layer7


class L7Entry(NamedTuple):
    """A record and its parts of a flow. The record is as redacted as what is encoded."""

    record: L7Record
    layer7: bytes  # the body of flow.Layer7
    trace: bytes  # the body of flow.TraceContext; empty: none
    summary: str


class L7Entries:
    """Entries of the flows in the ring. Numbers grow; 0 is none."""

    def __init__(self) -> None:
        self._entries: deque[tuple[int, L7Entry]] = deque()  # sequence number of the flow, entry
        self._first = 1  # number of the first of them

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, record: L7Record, sequence: int) -> int:
        """Keep a record; its number."""
        trace = wire.message(1, wire.text(1, record.trace_id)) if record.trace_id else b""
        self._entries.append((sequence, L7Entry(record, _layer7(record), trace, summary(record))))
        return self._first + len(self._entries) - 1

    def get(self, number: int) -> L7Entry | None:
        """The entry of a number; None if there is none any more."""
        place = number - self._first
        return self._entries[place][1] if 0 <= place < len(self._entries) else None

    def forget(self, left: int) -> None:
        """Drop what belongs to flows before a sequence number."""
        while self._entries and self._entries[0][0] < left:
            self._entries.popleft()
            self._first += 1


def _layer7(record: L7Record) -> bytes:
    body = wire.number(1, record.type) + wire.number(2, record.latency)
    if record.dns is not None:
        return body + wire.message(_DNS, _dns(record.dns))
    return body + wire.message(_HTTP, _http(record.http)) if record.http is not None else body


def _http(http: HttpRecord) -> bytes:
    headers = sorted(http.headers, key=lambda header: header.name)
    return (
        wire.number(1, http.code)
        + wire.text(2, http.method)
        + wire.text(3, http.url)
        + wire.text(4, http.protocol)
        + b"".join(wire.message(5, wire.text(1, header.name) + wire.text(2, header.value)) for header in headers)
    )


def _dns(dns: DnsRecord) -> bytes:
    return (
        wire.text(1, dns.query)
        + wire.texts(2, dns.ips)
        + wire.number(3, dns.ttl)
        + wire.texts(4, dns.cnames)
        + wire.text(5, dns.observer)
        + wire.number(6, dns.rcode)
        + wire.texts(7, dns.qtypes)
        + wire.texts(8, dns.rrtypes)
    )


def summary(record: L7Record) -> str:
    """flow.Flow.Summary of an L7 flow."""
    if record.http is not None:
        return _http_summary(record.http, record)
    return _dns_summary(record.dns, record) if record.dns is not None else ""


def _http_summary(http: HttpRecord, record: L7Record) -> str:
    request = f"{http.method} {http.url}"
    if record.type == L7Type.RESPONSE:
        return f"{http.protocol} {http.code} {record.latency // 1_000_000}ms ({request})"
    return f"{http.protocol} {request}"


def _dns_summary(dns: DnsRecord, record: L7Record) -> str:
    asked = f"{dns.query} {','.join(dns.qtypes)}".rstrip()
    if record.type != L7Type.RESPONSE:
        return f"DNS Query {asked}"
    parts = [f'"{",".join(dns.ips)}"'] if dns.ips else []
    if dns.rcode:
        parts = [f"RCode: {code_text(dns.rcode)}"]
    if dns.cnames:
        parts.append(f'CNAMEs: "{",".join(dns.cnames)}"')
    parts.append(f"TTL: {dns.ttl}")
    who = "Proxy" if dns.observer == "proxy" else "Query"
    return f"DNS Answer {' '.join(parts)} ({who} {asked})"


def code_text(rcode: int) -> str:
    """A DNS response code in words."""
    return _CODES[rcode] if rcode < len(_CODES) else str(rcode)
