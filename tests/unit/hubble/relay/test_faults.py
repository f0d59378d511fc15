"""Nodes, peer services and certificates that come and go under readers that follow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ciliate_hubble.api import observer_pb2 as api
from ciliate_hubble.certificates.material import Material
from ciliate_hubble.relay import peers

from tests.unit.hubble.relay.conftest import Follower, Relay
from tests.unit.hubble.relay.nodes import Held, Node, PeerServer, Trust, response
from tests.unit.hubble.relay.proxy import Network
from tests.unit.processes.parts import reached

Follow = Callable[..., Follower]


def flow(node: Node, name: str) -> api.GetFlowsResponse:
    """What happens now."""
    return response(node.name, time.time_ns(), name)


async def test_a_follower_loses_and_repeats_nothing_when_a_node_is_restarted(relay: Relay, follow: Follow) -> None:
    a, b = Node("a"), Node("b")
    await relay.start(a, b)
    reader = follow()
    await reader.told("NODE_CONNECTED", a)
    await reached(lambda: len(a.requests) == len(b.requests) == 1, 10)
    await a.add(flow(a, "a1"), flow(a, "a2"))
    await b.add(flow(b, "b1"))
    await reader.has("a1", "a2", "b1")
    await a.stop()
    await reader.told("NODE_UNAVAILABLE", a)
    await a.add(flow(a, "a while away"))
    await b.add(flow(b, "b2"))
    await reader.has("b2")
    await a.start()
    await reader.told("NODE_CONNECTED", a, times=2)
    await a.add(flow(a, "a3"))
    await reader.has("a while away", "a3")
    assert sorted(reader.names) == ["a while away", "a1", "a2", "a3", "b1", "b2"]
    assert not reader.errors


async def test_flows_of_the_very_moment_at_which_a_stream_broke_are_given_once(relay: Relay, follow: Follow) -> None:
    a = Node("a")
    await relay.start(a)
    reader = follow()
    await reached(lambda: len(a.requests) == 1, 10)
    now = time.time_ns()
    await a.add(response("a", now - 5, "before"), response("a", now, "one"), response("a", now, "two"))
    await reader.has("two")
    await a.stop()
    await a.add(response("a", now, "three"), response("a", now + 1, "four"))
    await a.start()
    await reader.has("three", "four")
    assert sorted(reader.names) == ["before", "four", "one", "three", "two"]


async def test_nodes_that_come_and_go_are_told_and_their_flows_come(relay: Relay, follow: Follow) -> None:
    a, late = Node("a"), Node("late")
    await relay.start(a)
    reader = follow(number=20)
    await reader.told("NODE_CONNECTED", a)
    await late.add(flow(late, "at once"))
    await relay.add(late)
    await reader.told("NODE_CONNECTED", late)
    await late.add(flow(late, "later"))
    await reader.has("at once", "later")
    relay.peers.drop(late)
    await reader.told("NODE_GONE", late)
    await late.add(flow(late, "while gone"))
    await a.add(flow(a, "a1"))
    await reader.has("a1")
    relay.peers.put(late)
    await reader.told("NODE_CONNECTED", late, times=2)
    await reader.has("while gone")
    assert len(reader.names) == len(set(reader.names))


async def test_a_node_that_does_not_answer_is_unavailable_and_holds_nobody_up(relay: Relay, follow: Follow) -> None:
    hung, good = Node("hung"), Node("good")
    await hung.start()
    network = Network(hung.port)
    await network.start()
    hung.port, own = network.port, hung.port
    try:
        await relay.start(hung, good)
        reader = follow()
        await reader.told("NODE_CONNECTED", hung)
        await reached(lambda: len(hung.requests) == len(good.requests) == 1, 10)
        network.cut()
        await hung.add(flow(hung, "not delivered"))
        began = time.monotonic()
        await good.add(flow(good, "g1"))
        await reader.has("g1")
        assert time.monotonic() - began < 2, "it is waited for no longer than the window"
        await reader.told("NODE_UNAVAILABLE", hung)
        assert "does not answer" in relay.pool.connections["hung"].reason
        listed = (await relay.stub.GetNodes(api.GetNodesRequest(), timeout=5)).nodes
        assert [node.state for node in listed] == [1, 2]
        assert [found.flow.uuid for found in await relay.flows() if found.HasField("flow")] == ["g1"]
        network.mend()
        await reader.told("NODE_CONNECTED", hung, times=2)
        await reader.has("not delivered")
        assert len(reader.names) == len(set(reader.names))
    finally:
        hung.port = own
        await network.stop()


async def test_a_reader_that_never_reads_holds_neither_others_nor_much_memory(relay: Relay, follow: Follow) -> None:
    a = Node("a", history=[response("a", at, "x" * 2000) for at in range(1, 20_001)])
    await relay.start(a)
    lazy = relay.stub.GetFlows(api.GetFlowsRequest(follow=True, number=20_000))
    await reached(lambda: len(a.requests) == 1, 10)
    reader = follow()
    await reached(lambda: len(a.requests) == 2, 10)
    for number in range(50):
        await a.add(flow(a, f"n{number}"))
    await reader.has(*(f"n{number}" for number in range(50)))
    assert a.sent[0] < 10_000, "the node is not read further than the reader reads"
    read = 0
    async with asyncio.timeout(60):
        while read < 20_050:
            read += (await lazy.read()).HasField("flow")
    lazy.cancel()


async def test_when_a_peer_service_dies_the_next_one_is_asked_and_what_is_known_stays(
    relay: Relay, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "SETTLE", 0.5)
    a, removed = Node("a"), Node("removed")
    second = PeerServer(str(relay.folder / "second.sock"))
    services = f"[unix://{relay.peers.path}, unix://{second.path}]"
    await relay.start(a, removed, peer_service=services)
    try:
        reader = follow()
        await reader.told("NODE_CONNECTED", a)
        await relay.peers.stop()
        await reached(lambda: any("peer-service: unix://" in reason for reason in relay.reasons), 10)
        assert set(relay.pool.connections) == {"a", "removed"}
        await second.start()
        second.put(a)
        await reader.told("NODE_GONE", removed)
        assert set(relay.pool.connections) == {"a"}
        await a.add(flow(a, "a1"))
        await reader.has("a1")
        assert not any(a.name in names for state, names in reader.states if state != "NODE_CONNECTED")
    finally:
        await second.stop()


async def test_when_a_peer_service_hangs_the_next_one_is_asked(relay: Relay) -> None:
    a, late = Node("a"), Node("late")
    second = PeerServer(str(relay.folder / "second.sock"))
    await second.start()
    await relay.peers.start()
    network = Network(relay.peers.port)
    await network.start()
    try:
        await relay.add(a)
        second.put(a)
        await relay.start_relay(1, peer_service=f"[127.0.0.1:{network.port}, unix://{second.path}]")
        await relay.until_state(a, "NODE_CONNECTED")
        network.cut()
        await relay.add(late)
        second.put(late)
        await relay.until_state(late, "NODE_CONNECTED")
    finally:
        await network.stop()
        await second.stop()


async def test_a_node_whose_address_changes_is_connected_to_anew(relay: Relay, follow: Follow) -> None:
    a = Node("a")
    await relay.start(a)
    reader = follow()
    await reached(lambda: len(a.requests) == 1, 10)
    await a.stop()
    a.port = 0
    await a.start()
    relay.peers.put(a)
    await reader.told("NODE_CONNECTED", a, times=2)
    await a.add(flow(a, "a1"))
    await reader.has("a1")


def write(folder: Path, name: str, material: Material) -> None:
    """A material's three files."""
    for suffix, content in (("ca", material.authorities), ("key", material.key), ("crt", material.certificate)):
        (folder / f"{name}.{suffix}").write_bytes(content)


def tls_settings(folder: Path) -> dict[str, object]:
    """The relay's settings for such files."""
    return {
        "disable_client_tls": False,
        "tls_hubble_client_cert_file": folder / "client.crt",
        "tls_hubble_client_key_file": folder / "client.key",
        "tls_hubble_server_ca_files": f"[{folder / 'client.ca'}]",
    }


async def test_a_renewed_certificate_and_a_new_ca_break_no_stream(relay: Relay, follow: Follow) -> None:
    old, new = Trust(), Trust()
    both = (old.authority, new.authority)
    a = Node("a", keeper=Held(old.material(0)))
    write(relay.folder, "client", old.material(1))
    await relay.start(a, **tls_settings(relay.folder))
    reader = follow()
    await reader.told("NODE_CONNECTED", a)
    await reached(lambda: len(a.requests) == 1, 10)
    connection = relay.pool.connections["a"]
    assert (await relay.stub.GetNodes(api.GetNodesRequest())).nodes[0].tls.server_name.startswith("a.default.hubble-")

    async def renewed(material: Material) -> None:
        before = connection.generation
        write(relay.folder, "client", material)
        await reached(lambda: connection.generation > before and connection.line.material == material, 20)

    assert a.keeper is not None
    a.keeper.take(old.material(0, both), "the test")
    await renewed(old.material(1, both))
    a.keeper.take(new.material(0, both), "the test")
    await renewed(new.material(1, both))
    a.keeper.take(new.material(0), "the test")
    await a.add(flow(a, "a1"))
    await reader.has("a1")
    assert len(a.requests) == 1, "the stream of before is still the one that is read"
    assert reader.states == [("NODE_CONNECTED", ["a"])]
    await a.stop()
    await a.start()
    await reader.told("NODE_CONNECTED", a, times=2)
    await a.add(flow(a, "a2"))
    await reader.has("a2")


async def test_a_node_of_another_ca_is_unavailable_and_the_reason_is_told(relay: Relay) -> None:
    mine, other = Trust(), Trust()
    write(relay.folder, "client", mine.material(1))
    good, bad = Node("good", keeper=Held(mine.material(0))), Node("bad", keeper=Held(other.material(0)))
    await relay.start(good, bad, **tls_settings(relay.folder))
    await relay.until_state(bad, "NODE_UNAVAILABLE")
    assert "CERTIFICATE_VERIFY_FAILED" in relay.pool.connections["bad"].reason
    await relay.until_state(good, "NODE_CONNECTED")
