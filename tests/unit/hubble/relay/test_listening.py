"""Where the relay listens, and with which certificates of the store."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
from ciliate.health import Health
from ciliate_hubble.api import observer_pb2 as api
from ciliate_hubble.api.observer_pb2_grpc import ObserverStub
from ciliate_hubble.certificates.issuer import Issuer
from ciliate_hubble.certificates.material import Material
from ciliate_hubble.certificates.names import RELAY_CLIENT_SECRET, RELAY_SERVER_SECRET, SERVER_SECRET, leaves
from ciliate_hubble.certificates.secrets import SECRET, read_data
from ciliate_hubble.relay.channels import check, open_channel
from ciliate_store_local.driver import LocalStore

from tests.unit.hubble.certificates.conftest import LIVES, NAMESPACE
from tests.unit.hubble.relay.conftest import Relay
from tests.unit.hubble.relay.nodes import Held, Node, response
from tests.unit.processes.parts import reached

RELAY = "ui.hubble-relay.cilium.io"


async def issued(folder: Path) -> dict[str, Material]:
    """What an operator makes in the relay's store."""
    store = LocalStore({"path": str(folder / "store.db")}, (SECRET,))
    try:
        issuer = Issuer(store, NAMESPACE, leaves("default"), LIVES, Health("hubble"), structlog.get_logger("hubble"))
        await issuer.ensure(datetime.datetime.now(datetime.UTC))
        found = {}
        for name in (SERVER_SECRET, RELAY_CLIENT_SECRET, RELAY_SERVER_SECRET):
            data = read_data(await store.get(SECRET, name, NAMESPACE), "tls.crt", "tls.key", "ca.crt")
            found[name] = Material(data["tls.crt"], data["tls.key"], data["ca.crt"])
        return found
    finally:
        await store.close()


async def ask(channel: grpc.aio.Channel) -> int:
    """How many flows there are."""
    stub: Any = ObserverStub(channel)
    async with channel:
        return sum([one.HasField("flow") async for one in stub.GetFlows(api.GetFlowsRequest(), timeout=10)])


def port_of(relay: Relay, setting: str) -> int:
    """Where it listens."""
    return int(relay.process._server.ports[setting])


@pytest.mark.parametrize("mutual", [False, True], ids=["server certificate", "mutual"])
async def test_certificates_of_the_store_serve_both_sides(relay: Relay, mutual: bool) -> None:
    secrets = await issued(relay.folder)
    node = Node("a", keeper=Held(secrets[SERVER_SECRET]), history=[response("a", 1)])
    settings = {"disable_server_tls": False, "client_certificates": mutual}
    await relay.start(node, disable_client_tls=False, listen_address="127.0.0.1:0", **settings)
    await relay.until_state(node, "NODE_CONNECTED")
    await reached(lambda: not relay.reasons, 10)
    address = f"127.0.0.1:{port_of(relay, 'relay.listen_address')}"
    client = secrets[RELAY_CLIENT_SECRET]
    anonymous = Material(b"", b"", client.authorities)
    assert await ask(open_channel(address, client, RELAY)) == 1
    for refused in [None, anonymous] if mutual else [None]:
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(open_channel(address, refused, RELAY))
    if not mutual:
        assert await ask(open_channel(address, anonymous, RELAY)) == 1


async def test_a_relay_without_a_certificate_says_what_it_waits_for_and_goes_on_when_it_comes(relay: Relay) -> None:
    node = Node("a", keeper=None, history=[response("a", 1)])
    secure = Node("s", history=[response("s", 2)])
    await relay.start(node, disable_client_tls=False)
    waits = "waits for Secret kube-system/hubble-relay-client-certs, which the operator makes"
    assert f"certificate: {waits}" in relay.reasons
    secrets = await issued(relay.folder)
    secure.keeper = Held(secrets[SERVER_SECRET])
    await relay.add(secure)
    await relay.until_state(secure, "NODE_CONNECTED")
    assert sum(one.HasField("flow") for one in await relay.flows()) == 2, "one without TLS, one with"


async def test_probes_have_an_address_of_their_own(relay: Relay) -> None:
    node = Node("a")
    await relay.start(node, health_listen_address="127.0.0.1:0")
    await reached(lambda: not relay.reasons, 10)
    port = relay.process._probes.ports["relay.health_listen_address"]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert await check(channel, 5) == ""
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ask(channel)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
