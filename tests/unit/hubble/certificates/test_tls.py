"""Real handshakes: who is let in, who is not, and that a renewed certificate is used without a new start."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
from ciliate.health import Health
from ciliate_hubble.certificates.authority import Pair, issue, make_authority
from ciliate_hubble.certificates.credentials import client_credentials, server_credentials
from ciliate_hubble.certificates.material import FileKeeper, Files, Material, MaterialError, SecretKeeper
from ciliate_hubble.certificates.names import RELAY_CLIENT_SECRET, SERVER_SECRET, leaves, server_name
from ciliate_hubble.certificates.secrets import SECRET
from ciliate_store_local.driver import LocalStore
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.unit.hubble.certificates.conftest import DAY, NAMESPACE, MakeIssuer
from tests.unit.processes.parts import reached

SERVER, CLIENT, _ = leaves("default")
SECOND = datetime.timedelta(seconds=1)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def material(pair: Pair | None, *authorities: Pair) -> Material:
    bundle = b"".join(authority.certificate_pem for authority in authorities)
    return Material(pair.certificate_pem, pair.key_pem, bundle) if pair is not None else Material(b"", b"", bundle)


class Given:
    """A keeper of what a test gives it."""

    def __init__(self, current: Material) -> None:
        self.current: Material | None = current

    async def run(self) -> None:
        """Nothing changes by itself."""

    async def changed(self, known: Material | None) -> Material:
        """What there is."""
        assert self.current is not None
        return self.current


@asynccontextmanager
async def serving(keeper: Given | SecretKeeper) -> AsyncIterator[int]:
    """A real server with the health service; its port."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(keeper, client_certificates=True))
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def refusal(port: int, client: Material, name: str = server_name("node1", "default")) -> str:
    """Why a call fails; empty if it is answered."""
    options = [("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", client_credentials(client), options) as channel:
        try:
            call: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
            await call(health_pb2.HealthCheckRequest().SerializeToString(), timeout=10)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
    return ""


@pytest.fixture(scope="module")
def authority() -> Pair:
    """The cluster's CA."""
    return make_authority(now(), 900 * DAY)


@pytest.fixture
async def port(authority: Pair) -> AsyncIterator[int]:
    """A server that asks for certificates of the cluster's CA."""
    async with serving(Given(material(issue(authority, SERVER, now(), DAY), authority))) as port:
        yield port


async def test_a_relays_certificate_is_let_in(port: int, authority: Pair) -> None:
    assert not await refusal(port, material(issue(authority, CLIENT, now(), DAY), authority))


async def test_a_client_without_a_certificate_is_refused(port: int, authority: Pair) -> None:
    assert (await refusal(port, material(None, authority))).startswith("UNAVAILABLE")


async def test_a_certificate_of_another_ca_is_refused(port: int, authority: Pair) -> None:
    other = make_authority(now(), 900 * DAY)
    assert (await refusal(port, material(issue(other, CLIENT, now(), DAY), authority))).startswith("UNAVAILABLE")


async def test_an_expired_certificate_is_refused(port: int, authority: Pair) -> None:
    expired = issue(authority, CLIENT, now() - 2 * DAY, DAY)
    assert (await refusal(port, material(expired, authority))).startswith("UNAVAILABLE")


async def test_a_certificate_that_is_not_for_clients_is_refused(port: int, authority: Pair) -> None:
    server = issue(authority, SERVER, now(), DAY)
    assert (await refusal(port, material(server, authority))).startswith("UNAVAILABLE")


async def test_a_client_refuses_a_server_of_another_ca_and_of_another_name(port: int, authority: Pair) -> None:
    own = issue(authority, CLIENT, now(), DAY)
    assert "CERTIFICATE_VERIFY_FAILED" in await refusal(port, material(own, make_authority(now(), DAY)))
    assert "UNAVAILABLE" in await refusal(port, material(own, authority), "node1.other.hubble-grpc.cilium.io")


@pytest.mark.parametrize(
    ("highest", "expected"), [(ssl.TLSVersion.TLSv1_2, ""), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")], ids=["1.2", "1.3"]
)
def test_nothing_below_tls_1_3_is_spoken(
    authority: Pair, tmp_path: Path, highest: ssl.TLSVersion, expected: str
) -> None:
    """In a process of its own: the lowest version is settled when grpc is imported."""
    own, server = issue(authority, CLIENT, now(), DAY), issue(authority, SERVER, now(), DAY)
    for name, content in (
        ("client.pem", own.certificate_pem + own.key_pem),
        ("tls.crt", server.certificate_pem),
        ("tls.key", server.key_pem),
        ("ca.crt", authority.certificate_pem),
    ):
        (tmp_path / name).write_bytes(content)
    context = ssl.create_default_context(cafile=tmp_path / "ca.crt")
    context.check_hostname = False
    context.load_cert_chain(tmp_path / "client.pem")
    context.set_alpn_protocols(["h2"])
    context.maximum_version = highest
    script = [sys.executable, str(Path(__file__).with_name("tls_server.py")), str(tmp_path)]
    with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        port = int(process.stdout.readline())
        spoken = ""
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            context.wrap_socket(plain) as secured,
        ):
            spoken = secured.version() or ""
        process.stdin.close()
    assert spoken == expected


async def test_a_server_uses_a_renewed_certificate_and_new_cas_at_the_next_connection(authority: Pair) -> None:
    next_ = make_authority(now(), 900 * DAY)
    keeper = Given(material(issue(authority, SERVER, now(), DAY), authority))
    old = material(issue(authority, CLIENT, now(), DAY), authority)
    new = material(issue(next_, CLIENT, now(), DAY), next_)
    both = material(issue(authority, CLIENT, now(), DAY), authority, next_)
    async with serving(keeper) as port:
        assert not await refusal(port, old)
        assert await refusal(port, new)
        keeper.current = material(issue(authority, SERVER, now(), DAY), authority, next_)
        assert not await refusal(port, old), "while two CAs are trusted, the old certificate is good"
        keeper.current = material(issue(next_, SERVER, now(), DAY), authority, next_)
        assert not await refusal(port, new)
        assert not await refusal(port, both)
        assert await refusal(port, old), "this client does not know the CA that signs now"


async def test_secrets_of_the_issuer_serve_a_connection_and_their_renewal_the_next(
    store: LocalStore, make_issuer: MakeIssuer
) -> None:
    log = structlog.get_logger("hubble")
    status = Health("hubble")
    server = SecretKeeper(store, NAMESPACE, SERVER_SECRET, status, "tls", log)
    client = SecretKeeper(store, NAMESPACE, RELAY_CLIENT_SECRET, Health("relay"), "tls", log)
    running = [asyncio.create_task(keeper.run()) for keeper in (server, client)]
    try:
        assert "waits for Secret kube-system/hubble-server-certs" in status.reasons[0]
        await make_issuer().ensure(now())
        first = await asyncio.wait_for(server.changed(None), 10)
        await asyncio.wait_for(client.changed(None), 10)
        assert not status.reasons
        async with serving(server) as port:
            own = client.current
            assert own is not None
            assert not await refusal(port, own)
            await store.delete(SECRET, SERVER_SECRET, NAMESPACE)
            await store.delete(SECRET, RELAY_CLIENT_SECRET, NAMESPACE)
            assert not await refusal(port, own), "a deleted Secret takes nothing away"
            await make_issuer().ensure(now())
            await asyncio.wait_for(server.changed(first), 10)
            renewed = await asyncio.wait_for(client.changed(own), 10)
            assert not await refusal(port, renewed)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_files_are_read_again_when_they_change_and_a_bad_one_is_not_used(tmp_path: Path, authority: Pair) -> None:
    paths = Files(str(tmp_path / "tls.crt"), str(tmp_path / "tls.key"), (str(tmp_path / "ca.crt"),))
    status = Health("hubble")
    keeper = FileKeeper(paths, status, "tls", structlog.get_logger("hubble"))
    running = asyncio.create_task(keeper.run())

    def write(pair: Pair) -> None:
        for name, content in (("ca.crt", authority.certificate_pem), ("tls.key", pair.key_pem)):
            (tmp_path / name).write_bytes(content)
        (tmp_path / "tls.crt").write_bytes(pair.certificate_pem)

    try:
        await reached(lambda: any("tls.crt can't be read" in reason for reason in status.reasons), 10)
        write(issue(authority, SERVER, now(), DAY))
        first = await asyncio.wait_for(keeper.changed(None), 10)
        (tmp_path / "tls.key").write_bytes(make_authority(now(), DAY).key_pem)
        await reached(lambda: any("are no pair" in reason for reason in status.reasons), 10)
        assert keeper.current == first
        write(issue(authority, SERVER, now(), DAY))
        await asyncio.wait_for(keeper.changed(first), 10)
        assert not status.reasons
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_material_that_can_not_be_used_says_what_is_wrong_and_shows_no_key(authority: Pair) -> None:
    pair = issue(authority, SERVER, now(), DAY)
    good = material(pair, authority)
    good.check()
    assert "PRIVATE" not in repr(good)
    for bad, why in (
        (Material(good.certificate, good.key, b"none"), "CAs"),
        (Material(good.certificate, authority.key_pem, good.authorities), "no pair"),
        (Material(good.certificate, b"", good.authorities), "no pair"),
    ):
        with pytest.raises(MaterialError, match=why):
            bad.check()
