"""Credentials that change and expire under a running process: nothing is started anew, and nothing is missed."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from ciliate.store import DeniedError, InvalidError, NotFoundError, UnavailableError
from ciliate_kubernetes.store.credentials import Credentials
from ciliate_kubernetes.store.driver import KubernetesStore

from tests.contracts.store import WIDGET, widget
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.store.conftest import OpenStore
from tests.kubernetes.store.follower import Follower
from tests.kubernetes.store.proxy import Fault, Proxy, read_kubeconfig, refuses

ADMINS = ["system:masters"]


def kubeconfig(plane: ControlPlane, server: str = "", **user: Any) -> str:
    """A kubeconfig's text."""
    cluster = {"server": server or plane.url}
    if cluster["server"].startswith("https"):
        cluster["certificate-authority"] = str(plane.authority.file)
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )


@pytest.fixture
async def proxy(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Proxy]:
    """A proxy that runs: it sees which token each request brings."""
    proxy = Proxy(read_kubeconfig(control_plane.kubeconfig, tmp_path))
    await proxy.start()
    yield proxy
    await proxy.stop()


async def until(condition: Callable[[], object], limit: float = 20.0) -> None:
    async with asyncio.timeout(limit):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_client_certificate_that_expires_is_replaced_by_the_one_that_was_written_meanwhile(
    control_plane: ControlPlane, open_store: OpenStore, store: KubernetesStore, space: str, tmp_path: Path
) -> None:
    authority, life = control_plane.authority, datetime.timedelta(seconds=3)
    pair = authority.client("rotated", ADMINS, life)
    path = tmp_path / "kubeconfig"
    path.write_text(
        kubeconfig(control_plane, **{"client-certificate": str(pair.certificate), "client-key": str(pair.key)})
    )
    rotated = open_store(kubeconfig=str(path), watch_seconds=1.0, first_pause=0.02, most_pause=0.2)
    async with Follower(rotated, space) as follower:
        await follower.until(lambda: follower.complete)
        with pytest.raises(DeniedError, match="does not accept these credentials"):
            async with asyncio.timeout(20):
                while True:
                    await rotated.list(WIDGET, space)
        await until(lambda: rotated.problems())
        authority.client("rotated", ADMINS)  # in the same files
        await rotated.create(widget("after", space))
        await follower.until(lambda: "after" in follower.known and rotated.problems() == ())


async def test_a_token_in_a_file_is_read_again_when_it_changes(
    control_plane: ControlPlane, open_store: OpenStore, store: KubernetesStore, proxy: Proxy, space: str, tmp_path: Path
) -> None:
    token, path = tmp_path / "token", tmp_path / "kubeconfig"
    token.write_text("first")
    path.write_text(kubeconfig(control_plane, proxy.url, tokenFile=str(token)))
    behind = open_store(kubeconfig=str(path), credentials_seconds=0.05)
    await behind.list(WIDGET, space)
    assert proxy.seen[-1].authorization == "Bearer first"
    token.write_text("second")

    async def asks_with(wanted: str) -> None:
        async with asyncio.timeout(10):
            while proxy.seen[-1].authorization != wanted:
                await behind.list(WIDGET, space)

    await asks_with("Bearer second")
    path.write_text(kubeconfig(control_plane, proxy.url, token="third"))
    await asks_with("Bearer third")


async def test_a_token_that_is_refused_is_read_again_at_once(
    control_plane: ControlPlane, open_store: OpenStore, store: KubernetesStore, proxy: Proxy, space: str, tmp_path: Path
) -> None:
    token, path = tmp_path / "token", tmp_path / "kubeconfig"
    token.write_text("first")
    path.write_text(kubeconfig(control_plane, proxy.url, tokenFile=str(token)))
    behind = open_store(kubeconfig=str(path))  # looks once a minute
    async with Follower(behind, space) as follower:
        await follower.until(lambda: follower.complete)
        token.write_text("second")
        refused = refuses(401, "Unauthorized")
        proxy.inject(lambda seen: seen.authorization == "Bearer first", Fault(refused, times=1000))
        await behind.create(widget("web", space))
        assert [seen.authorization for seen in proxy.seen[-2:]] == ["Bearer first", "Bearer second"]
        await follower.until(lambda: "web" in follower.known)


async def test_a_file_that_is_half_written_leaves_the_credentials_that_were_good(
    control_plane: ControlPlane, open_store: OpenStore, store: KubernetesStore, proxy: Proxy, space: str, tmp_path: Path
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(kubeconfig(control_plane, proxy.url, token="good"))
    behind = open_store(kubeconfig=str(path), credentials_seconds=1e-6)
    await behind.list(WIDGET, space)
    for nonsense in ("{", "", "[]", "users: 7", '{"current-context": "none"}'):
        path.write_text(nonsense)
        await behind.list(WIDGET, space)
        assert proxy.seen[-1].authorization == "Bearer good"


async def test_a_pod_uses_its_service_account(
    control_plane: ControlPlane, store: KubernetesStore, space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _, port = control_plane.url.removeprefix("https://").rpartition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    token, ca = tmp_path / "token", tmp_path / "ca.crt"
    ca.write_bytes(control_plane.authority.file.read_bytes())
    token.write_text(_service_account_token(control_plane, space))
    inside = KubernetesStore({}, ())
    transport = await inside._requests._loaded()
    transport._credentials = Credentials(inside._options, str(token), str(ca))
    with pytest.raises(DeniedError, match=rf"system:serviceaccount:{space}:default lacks the right to (list|watch)"):
        await inside.list(WIDGET, space)
    await inside.close()


def _service_account_token(plane: ControlPlane, space: str) -> str:
    plane.kubectl.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": space}}
    )
    return plane.kubectl("create", "token", "default", "-n", space).strip()


async def test_what_is_missing_is_said_and_waited_for(
    control_plane: ControlPlane, store: KubernetesStore, space: str, tmp_path: Path
) -> None:
    path = tmp_path / "kubeconfig"
    late = KubernetesStore({"kubeconfig": str(path), "first_pause": 0.02}, (WIDGET,))
    with pytest.raises(UnavailableError, match=rf"no credentials .* in {path}: there is no such file; name one by"):
        await late.list(WIDGET, space)
    async with Follower(late, space) as follower:
        await until(lambda: late.problems())
        path.write_text(control_plane.kubeconfig.read_text())
        await follower.until(lambda: follower.complete and late.problems() == ())
    await late.close()
    with pytest.raises(UnavailableError, match="closed"):
        await late.list(WIDGET, space)


async def test_options_are_checked_and_a_context_that_is_not_there_is_named(
    control_plane: ControlPlane, open_store: OpenStore
) -> None:
    with pytest.raises(InvalidError, match=r"unknown field `kubeconfg`.*known options are kubeconfig, context"):
        open_store(kubeconfg="x")
    with pytest.raises(InvalidError, match=r"page"):
        open_store(page=0)
    with pytest.raises(InvalidError, match=r"'10\.0\.0\.1' is not a URL, as https://"):
        open_store(server="10.0.0.1")
    with pytest.raises(UnavailableError, match="other"):
        await open_store(context="other").get(WIDGET, "web", "default")
    with pytest.raises(NotFoundError):
        await open_store(context="tests").get(WIDGET.only(), "none", "default")


async def test_certificates_may_be_in_the_kubeconfig_itself(
    control_plane: ControlPlane, open_store: OpenStore, store: KubernetesStore, space: str, tmp_path: Path
) -> None:
    def data(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    path = tmp_path / "kubeconfig"
    for name in ("one", "two"):
        pair = control_plane.authority.client(name, ADMINS)
        path.write_text(
            kubeconfig(
                control_plane,
                **{"client-certificate-data": data(pair.certificate), "client-key-data": data(pair.key)},
            )
        )
        assert (await open_store(kubeconfig=str(path)).list(WIDGET, space)).items == []
