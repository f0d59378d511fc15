"""What the driver does when the API server, or the way to it, fails: it goes on, it says so, and it is never busy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from ciliate.metrics import Metrics
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
from ciliate_kubernetes.store import lists as lists_of_store
from ciliate_kubernetes.store.driver import KubernetesStore

from tests.contracts.store import WIDGET, widget
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.store.conftest import OpenStore
from tests.kubernetes.store.follower import Follower
from tests.kubernetes.store.proxy import Answer, Fault, Proxy, Seen, read_kubeconfig, refuses, says, status, streams

IMPATIENT: dict[str, Any] = {
    "first_pause": 0.02,
    "most_pause": 0.2,
    "connect_timeout": 1.0,
    "request_timeout": 3.0,
    "silent_seconds": 0.5,
    "streaming_lists": False,
}
"""Minutes as fractions of a second."""


@pytest.fixture
async def proxy(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Proxy]:
    """A proxy that runs."""
    proxy = Proxy(read_kubeconfig(control_plane.kubeconfig, tmp_path))
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest.fixture
def behind(proxy: Proxy, open_store: OpenStore, store: KubernetesStore) -> KubernetesStore:
    """A store that sees the API server through the proxy. (`store` has registered the kinds.)"""
    return open_store(server=proxy.url, **IMPATIENT)


def watches(seen: Seen) -> bool:
    return seen.is_watch


def lists(seen: Seen) -> bool:
    return "limit" in seen.query


def gets(seen: Seen) -> bool:
    return not seen.is_watch


WATCH_FAULTS: dict[str, Callable[[], Fault]] = {
    "expired": lambda: Fault(refuses(410, "Expired", "too old resource version")),
    "expired in the stream": lambda: Fault(
        streams({"type": "ERROR", "object": status(410, "Expired", "too old resource version: 1 (2)")})
    ),
    "fails": lambda: Fault(refuses(500, "InternalError")),
    "fails in the stream": lambda: Fault(streams({"type": "ERROR", "object": status(500, "InternalError")})),
    "unavailable": lambda: Fault(says(503, "no healthy upstream"), times=3),
    "bad gateway": lambda: Fault(says(502, "<html>bad gateway</html>"), times=3),
    "timeout": lambda: Fault(refuses(504, "Timeout")),
    "too much to do": lambda: Fault(refuses(429, "TooManyRequests", retry_after="1")),
    "credentials": lambda: Fault(refuses(401, "Unauthorized"), times=3),
    "rights": lambda: Fault(refuses(403, "Forbidden", _FORBIDDEN)),
    "no such kind": lambda: Fault(says(404, "404 page not found")),
    "too new": lambda: Fault(
        refuses(
            504, "Timeout", "Too large resource version: 9, current: 8", causes=[{"reason": "ResourceVersionTooLarge"}]
        )
    ),
    "cut at once": lambda: Fault(cut_after=0, times=3),
    "cut in a line": lambda: Fault(cut_after=70, times=2),
    "nonsense": lambda: Fault(streams("<html>"), times=2),
    "half an event": lambda: Fault(streams('{"type":"ADDED","object":{"metadata"')),
    "an event of no kind": lambda: Fault(streams('{"type":"PERHAPS","object":{"metadata":{"resourceVersion":"1"}}}')),
    "an object without metadata": lambda: Fault(streams('{"type":"ADDED","object":{"kind":"Widget"}}')),
    "ends at once": lambda: Fault(streams(), times=3),
    "silent": lambda: Fault(silent=True),
}
_FORBIDDEN = (
    'widgets.tests.ciliate.io is forbidden: User "x" cannot watch resource "widgets" in API group'
    ' "tests.ciliate.io" in the namespace "y"'
)


@pytest.mark.parametrize("fault", WATCH_FAULTS)
async def test_a_watch_that_ends_badly_is_begun_anew_and_nothing_is_missed(
    store: KubernetesStore, behind: KubernetesStore, proxy: Proxy, space: str, fault: str
) -> None:
    await store.create(widget("first", space, size=1))
    await store.create(widget("gone", space, size=1))
    proxy.inject(watches, WATCH_FAULTS[fault]())
    async with Follower(behind, space) as follower:
        await follower.until(lambda: follower.complete)
        await store.create(widget("second", space, size=1))
        await store.update(widget("first", space, size=2))
        await store.delete(WIDGET, "gone", space)
        await follower.until(lambda: follower.known == {"first": {"size": 2}, "second": {"size": 1}})
        await follower.until(lambda: not proxy.faults)
        await store.create(widget("third", space))
        await follower.until(lambda: "third" in follower.known and behind.problems() == ())
    assert len(proxy.seen) < 30, "it was busy"


LIST_FAULTS: dict[str, tuple[Answer, str]] = {
    "fails": (refuses(500, "InternalError", "etcd is sick"), "fails with 500: etcd is sick"),
    "unavailable": (says(503, "no healthy upstream"), "fails with 503: no healthy upstream"),
    "too much to do": (refuses(429, "TooManyRequests", "later", retry_after="1"), r"too much to do \(later\)"),
    "credentials": (refuses(401, "Unauthorized", "who?"), "does not accept these credentials"),
    "rights": (
        refuses(403, "Forbidden", _FORBIDDEN.replace("watch", "list")),
        r"can't list widgets\.tests\.ciliate\.io: x lacks the right to list .*; grant verb 'list' on resource",
    ),
    "no list": (says(200, "<html>"), "sent no list of widgets"),
    "half a list": (says(200, '{"metadata":{"resourceVersion":"5"},"items":[{"meta'), "sent no list of widgets"),
}


@pytest.mark.parametrize("fault", LIST_FAULTS)
async def test_a_list_that_fails_is_tried_again_and_what_is_wrong_is_said(
    store: KubernetesStore, behind: KubernetesStore, proxy: Proxy, space: str, fault: str
) -> None:
    answer, reason = LIST_FAULTS[fault]
    await store.create(widget("first", space))
    proxy.inject(lists, Fault(answer, times=1000))
    with pytest.raises(UnavailableError, match=reason):
        await behind.list(WIDGET, space)
    async with Follower(behind, space) as follower:
        began, before = time.monotonic(), len(proxy.seen)
        await follower.until(lambda: behind.problems() and len(proxy.seen) > before + 3, limit=30)
        assert len(proxy.seen) - before < 20 + 20 * (time.monotonic() - began), "it was busy"
        assert len(behind.problems()) == 1 and not follower.complete
        proxy.faults.clear()
        await follower.until(lambda: "first" in follower.known, limit=30)
        assert behind.problems() == ()


async def test_pages_of_a_list_that_expires_in_the_middle_are_asked_for_anew(
    store: KubernetesStore, open_store: OpenStore, proxy: Proxy, space: str
) -> None:
    behind = open_store(server=proxy.url, **{**IMPATIENT, "page": 5})
    await asyncio.gather(*(store.create(widget(f"w{n}", space)) for n in range(23)))
    expired = refuses(410, "Expired", "The provided continue parameter is too old")
    proxy.inject(lambda seen: "continue" in seen.query, Fault(expired))
    with pytest.raises(ExpiredError):
        await behind.list(WIDGET, space)
    proxy.inject(lambda seen: "continue" in seen.query and len(proxy.lists()) % 4 == 3, Fault(expired))
    async with Follower(behind, space) as follower:
        await follower.until(lambda: follower.complete)
        assert len(follower.known) == 23


@pytest.mark.parametrize("fault", ["silent", "refused", "fails"])
async def test_a_server_that_can_not_stream_lists_is_asked_for_pages(
    store: KubernetesStore, open_store: OpenStore, proxy: Proxy, space: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists_of_store, "_STREAM_PATIENCE", 0.2)
    await store.create(widget("first", space))
    invalid = refuses(422, "Invalid", causes=[{"field": "sendInitialEvents", "message": "forbidden"}])
    failing = streams({"type": "ERROR", "object": status(500, "InternalError", "RequestWatchProgress is disabled")})
    answer = {"silent": Fault(silent=True), "refused": Fault(invalid), "fails": Fault(failing)}[fault]
    proxy.inject(lambda seen: "sendInitialEvents" in seen.query, answer)
    behind = open_store(server=proxy.url, **{**IMPATIENT, "streaming_lists": True, "silent_seconds": 5.0})
    for _ in range(2):
        assert [obj["metadata"]["name"] for obj in (await behind.list(WIDGET, space)).items] == ["first"]
    assert len([seen for seen in proxy.seen if "sendInitialEvents" in seen.query]) == 1, (
        "it was asked for streams again"
    )


async def test_an_outage_after_the_start_costs_no_list_and_loses_no_change(
    store: KubernetesStore, behind: KubernetesStore, proxy: Proxy, space: str
) -> None:
    async with Follower(behind, space) as follower:
        await follower.until(lambda: follower.complete and proxy.watches())
        await proxy.stop()
        await follower.until(lambda: behind.problems())
        assert "does not answer" in behind.problems()[0] and proxy.url in behind.problems()[0]
        await store.create(widget("meanwhile", space))
        with pytest.raises(UnavailableError, match="does not answer"):
            await behind.get(WIDGET, "meanwhile", space)
        await proxy.start()
        await follower.until(lambda: "meanwhile" in follower.known and behind.problems() == ())
    assert len(proxy.lists()) == 1, "what was known was asked for again"


async def test_an_api_server_that_is_away_at_the_start_is_waited_for(
    behind: KubernetesStore, proxy: Proxy, store: KubernetesStore, space: str
) -> None:
    await proxy.stop()
    async with Follower(behind, space) as follower:
        await follower.until(lambda: behind.problems())
        await proxy.start()
        await follower.until(lambda: follower.complete and behind.problems() == ())


async def test_an_api_server_that_is_ended_and_started_again_is_found_again(
    control_plane: ControlPlane, open_store: OpenStore, store: KubernetesStore, space: str
) -> None:
    patient = open_store(**IMPATIENT)
    async with Follower(patient, space) as follower:
        await follower.until(lambda: follower.complete)
        await asyncio.to_thread(control_plane.api_server.stop)
        await follower.until(lambda: patient.problems())
        with pytest.raises(UnavailableError, match="does not answer"):
            await patient.list(WIDGET, space)
        control_plane.start_api_server()  # not in a thread, with whose end it would end
        await patient.create(widget("after", space))
        await follower.until(lambda: "after" in follower.known and patient.problems() == ())


async def test_a_server_that_asks_for_patience_is_given_it(behind: KubernetesStore, proxy: Proxy, space: str) -> None:
    proxy.inject(gets, Fault(refuses(429, "TooManyRequests", retry_after="1"), times=1))
    began = time.monotonic()
    assert (await behind.create(widget("web", space)))["metadata"]["uid"]
    assert 1.0 <= time.monotonic() - began < 3.0
    proxy.inject(gets, Fault(refuses(429, "TooManyRequests", retry_after="60"), times=2))
    with pytest.raises(UnavailableError) as caught:
        await behind.get(WIDGET, "web", space)
    assert caught.value.retry_after == 60.0


async def test_a_request_that_is_never_answered_is_given_up(behind: KubernetesStore, proxy: Proxy, space: str) -> None:
    proxy.inject(gets, Fault(silent=True))
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="does not answer"):
        await behind.get(WIDGET, "web", space)
    assert time.monotonic() - began < 10


REFUSALS: list[tuple[Answer, type[StoreError], str]] = [
    (refuses(404, "NotFound", name="web"), NotFoundError, "widgets.tests.ciliate.io .*web not found"),
    (says(404, "404 page not found"), MissingKindError, "can't|has no|does not know"),
    (refuses(409, "AlreadyExists"), AlreadyExistsError, "already exists"),
    (refuses(409, "Conflict", "modified"), ConflictError, "modified; read it again"),
    (refuses(400, "BadRequest", "no"), InvalidError, "no"),
    (refuses(413, "RequestEntityTooLarge", "limit is 3145728"), InvalidError, "limit is"),
    (
        refuses(422, "Invalid", "is invalid", causes=[{"field": "spec.size", "message": "must be small"}]),
        InvalidError,
        r"spec\.size: must be small",
    ),
    (refuses(403, "Forbidden", "exceeded quota: few"), InvalidError, "exceeded quota"),
    (refuses(403, "Forbidden", 'admission webhook "x" denied the request'), InvalidError, "webhook"),
    (refuses(403, "Forbidden", _FORBIDDEN), DeniedError, "lacks the right"),
]


@pytest.mark.parametrize("number", range(len(REFUSALS)))
async def test_each_refusal_has_its_error_and_says_what_and_where(
    behind: KubernetesStore, proxy: Proxy, space: str, number: int
) -> None:
    answer, error, text = REFUSALS[number]
    proxy.inject(lambda seen: seen.method == "PUT", Fault(answer))
    made = await behind.create(widget("web", space))
    with pytest.raises(error, match=text) as caught:
        await behind.update(made)
    assert "widgets" in str(caught.value)


async def test_a_user_without_rights_is_told_which_it_lacks(
    control_plane: ControlPlane, open_store: OpenStore, store: KubernetesStore, space: str
) -> None:
    kubeconfig = control_plane.authority.kubeconfig(control_plane.url, "nobody", ["system:authenticated"])
    nobody = open_store(kubeconfig=str(kubeconfig))
    with pytest.raises(DeniedError, match=r"grant verb '(list|watch)' on resource 'widgets' of API group 'tests"):
        await nobody.list(WIDGET)
    with pytest.raises(DeniedError, match="nobody lacks the right to create widgets"):
        await nobody.create(widget("web", space))
    with pytest.raises(DeniedError, match="nobody lacks the right to patch widgets"):
        await nobody.patch(WIDGET, widget("web", space))
    assert "lacks the right to" in nobody.problems()[0]


async def test_requests_are_counted_by_their_answers(behind: KubernetesStore, proxy: Proxy, space: str) -> None:
    metrics = Metrics()
    behind.observe(metrics)
    await behind.create(widget("web", space))
    with pytest.raises(NotFoundError):
        await behind.get(WIDGET, "none", space)
    proxy.inject(gets, Fault(cut_after=0))
    with pytest.raises(UnavailableError):
        await behind.patch(WIDGET, widget("web", space))
    text = metrics.exposition()
    for method, code in (("POST", "201"), ("GET", "404"), ("PATCH", "200")):
        line = f'cilium_k8s_client_api_calls_total{{host="{proxy.url}",method="{method}",return_code="{code}"}} 1.0'
        assert line in text, text
    assert 'latency_time_seconds_count{method="GET",path="widgets.tests.ciliate.io"} 1.0' in text
    await proxy.stop()
    with pytest.raises(UnavailableError):
        await behind.get(WIDGET, "web", space)
    assert 'method="GET",return_code="<error>"} 1.0' in metrics.exposition()
