"""Metrics of requests: dns, http and httpV2. Each record is an object already, so these are counted one by one."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterable

from ciliate.model.l7 import DnsRecord, HttpRecord, L7Record, L7Type
from prometheus_client.core import HistogramMetricFamily, Metric

from ciliate_hubble.l7 import code_text
from ciliate_hubble.metrics.batch import Batch
from ciliate_hubble.metrics.counting import FlowMetric
from ciliate_hubble.metrics.options import MetricOptions
from ciliate_hubble.metrics.series import Labels

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds."""
_REPORTERS = {True: "server", False: "client"}


class _Requests(FlowMetric):
    """A metric of L7 records."""

    def count(self, batch: Batch) -> None:
        """Count the batch's records; an answer has the labels of its request: source is who asked."""
        for row in batch.l7.tolist():
            entry = batch.tables.l7.get(int(batch.flows["l7"][row]))
            if entry is not None:
                inverted = entry.record.type == L7Type.RESPONSE
                added = self.added.values(batch.flows[row], batch.tables.ends.rows, inverted=inverted)
                self.record(entry.record, added)

    @abstractmethod
    def record(self, record: L7Record, added: Labels) -> None:
        """Count one record."""


class Dns(_Requests):
    """hubble_dns_queries_total, hubble_dns_responses_total, hubble_dns_response_types_total."""

    def __init__(self, options: MetricOptions) -> None:
        super().__init__(options)
        labels = ("rcode", "qtypes", "ips_returned")
        self._by_query = "query" in options.switches
        query = ("query",) if self._by_query else ()
        self._queries = self.counter("dns_queries_total", "Number of DNS queries observed", *labels, *query)
        self._answers = self.counter("dns_responses_total", "Number of DNS responses observed", *labels, *query)
        self._types = self.counter("dns_response_types_total", "Number of DNS response types", "type", "qtypes", *query)

    def record(self, record: L7Record, added: Labels) -> None:
        """A query or an answer."""
        dns = record.dns
        if dns is None or ("ignoreAAAA" in self.options.switches and tuple(dns.qtypes) == ("AAAA",)):
            return
        more = ((dns.query,) if self._by_query else ()) + added
        if record.type == L7Type.REQUEST:
            self._queries.count(("", ",".join(dns.qtypes), "0", *more))
        elif record.type == L7Type.RESPONSE:
            self._answer(dns, more)

    def _answer(self, dns: DnsRecord, more: Labels) -> None:
        qtypes = ",".join(dns.qtypes)
        self._answers.count((code_text(dns.rcode), qtypes, str(len(dns.ips)), *more))
        for kind in dns.rrtypes:
            self._types.count((kind, qtypes, *more))


class _Durations:
    """A histogram with its series."""

    def __init__(self, labels: Labels) -> None:
        self._label_names = labels
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, labels: Labels, seconds: float) -> None:
        """Count one request."""
        counts = self._counts.setdefault(labels, [0] * (len(BUCKETS) + 1))
        counts[bisect_left(BUCKETS, seconds)] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + seconds

    def remove(self, gone: set[Labels]) -> None:
        """Drop series."""
        for labels in gone:
            self._counts.pop(labels, None)
            self._sums.pop(labels, None)

    def series(self) -> list[Labels]:
        """The labels of all."""
        return list(self._counts)

    def family(self) -> HistogramMetricFamily:
        """All series, for a scrape."""
        name, doc = "hubble_http_request_duration_seconds", "Quantiles of HTTP request duration in seconds"
        family = HistogramMetricFamily(name, doc, labels=self._label_names)
        for labels, counts in list(self._counts.items()):
            running, buckets = 0, []
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), list(counts), strict=True):
                running += count
                buckets.append((bound, float(running)))
            family.add_metric(labels, buckets, self._sums.get(labels, 0.0))
        return family


class Http(_Requests):
    """hubble_http_requests_total and others, in their first form (`http`) or their second (`httpV2`)."""

    def __init__(self, options: MetricOptions) -> None:
        super().__init__(options)
        self._second = options.name == "httpV2"
        requests = ("method", "protocol", "status", "reporter") if self._second else ("method", "protocol", "reporter")
        self._requests = self.counter("http_requests_total", "Count of HTTP requests", *requests)
        if not self._second:
            self._responses = self.counter(
                "http_responses_total", "Count of HTTP responses", "method", "status", "reporter"
            )
        self._durations = _Durations(("method", "reporter", *self.added.names))

    def record(self, record: L7Record, added: Labels) -> None:
        """A request or a response."""
        if record.http is None:
            return
        reporter = _REPORTERS[record.ingress]
        if record.type == L7Type.RESPONSE:
            self._response(record.http, record.latency / 1e9, reporter, added)
        elif record.type == L7Type.REQUEST and not self._second:
            self._requests.count((record.http.method, record.http.protocol, reporter, *added))

    def _response(self, http: HttpRecord, seconds: float, reporter: str, added: Labels) -> None:
        status = str(http.code)
        if self._second:
            self._requests.count((http.method, http.protocol, status, reporter, *added))
        else:
            self._responses.count((http.method, status, reporter, *added))
        self._durations.observe((http.method, reporter, *added), seconds)

    def families(self) -> Iterable[Metric]:
        """Counters and the histogram."""
        return [*super().families(), self._durations.family()]

    def forget_pods(self, pods: set[tuple[str, str]]) -> None:
        """Of the histogram too."""
        self._durations.remove({labels for labels in self._durations.series() if self.added.pods(labels[2:]) & pods})
        super().forget_pods(pods)
