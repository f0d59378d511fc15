"""L7 records: requests and answers that a proxy has read, as Hubble and others want to know of them.

Topic: `l7_records`, emitted by every plugin that reads requests (dns, l7_envoy, a stranger's), each naming L7_RECORDS
in its hook `ciliate_topics`. Readers subscribe in any process of the node; records of several emitters come mixed.
"""

from __future__ import annotations

import enum

from ciliate.events import TopicSpec
from ciliate.model.base import Row


class L7Type(enum.IntEnum):
    """What of an exchange it is (Hubble's numbers)."""

    REQUEST = 1
    RESPONSE = 2
    SAMPLE = 3


class L7Verdict(enum.IntEnum):
    """What became of it (Hubble's numbers)."""

    FORWARDED = 1
    DENIED = 2
    ERROR = 3
    REDIRECTED = 5


class HttpHeader(Row, frozen=True):
    """One header; a name that occurs twice is two of them."""

    name: str
    value: str


class HttpRecord(Row, frozen=True):
    """A request, or the response to one: then method and url are the request's."""

    method: str
    url: str  # scheme, authority and path, or the path alone
    protocol: str  # HTTP/1.1, HTTP/2
    code: int = 0  # of the response; 0: a request
    headers: tuple[HttpHeader, ...] = ()


class DnsRecord(Row, frozen=True):
    """A query, or the answer to one."""

    query: str  # the name, as it was asked
    qtypes: tuple[str, ...] = ()  # A, AAAA, ...
    rcode: int = 0
    ips: tuple[str, ...] = ()
    cnames: tuple[str, ...] = ()
    ttl: int = 0  # seconds, the least of the answer
    rrtypes: tuple[str, ...] = ()  # of the answer
    observer: str = "proxy"  # who has seen it


class L7Record(Row, frozen=True):
    """One request or answer. Source and destination are those of this message: an answer's source is the server."""

    time: int  # ns since the epoch
    type: L7Type
    verdict: L7Verdict
    ingress: bool  # read for the destination's ingress policy; else for the source's egress policy
    source: str  # address, as 10.0.1.7 or fd00::7
    destination: str
    source_port: int
    destination_port: int
    protocol: int = 6  # of IP
    source_endpoint: int = 0  # of this node; 0: elsewhere
    destination_endpoint: int = 0
    source_identity: int = 0  # 0: by the endpoint or the address
    destination_identity: int = 0
    rule_set: int = 0  # that sent it to the proxy, or denied it; 0: not known
    proxy_port: int = 0
    latency: int = 0  # of an answer: ns since its request; 0: not known
    trace_id: str = ""  # of a W3C traceparent, in hex
    http: HttpRecord | None = None
    dns: DnsRecord | None = None


L7_RECORDS: TopicSpec[L7Record] = TopicSpec("l7_records", L7Record, "What proxies have read: HTTP and DNS.")
