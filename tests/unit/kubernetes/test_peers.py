"""What other nodes' objects come to: claims on addresses, from objects sound and malformed, in a real host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ciliate.config import Settings
from ciliate.host import Host
from ciliate.model.api_server import API_SERVERS
from ciliate.model.identity import Reserved
from ciliate.model.ipcache import IpcacheClaim
from ciliate.model.kinds import CILIUM_ENDPOINT, CILIUM_NODE
from ciliate.places import open_store
from ciliate.store import Object, Store
from ciliate_kubernetes.peers.claims import CLAIMS
from ciliate_kubernetes.peers.cluster import ENDPOINT_SLICE
from ciliate_kubernetes.peers.objects import endpoint_claims, node_claims, range_claims, read_node


def node(name: str, *addresses: tuple[str, str], ranges: tuple[str, ...] = (), **spec: Any) -> Object:
    """A CiliumNode."""
    entries = [{"type": kind, "ip": address} for kind, address in addresses]
    return {
        "apiVersion": CILIUM_NODE.api_version,
        "kind": CILIUM_NODE.kind,
        "metadata": {"name": name},
        "spec": {"addresses": entries, "ipam": {"podCIDRs": list(ranges)}, **spec},
    }


def endpoint(name: str, identity: Any, host: str, **addresses: str) -> Object:
    """A CiliumEndpoint."""
    return {
        "apiVersion": CILIUM_ENDPOINT.api_version,
        "kind": CILIUM_ENDPOINT.kind,
        "metadata": {"name": name, "namespace": "shop"},
        "status": {"identity": {"id": identity}, "networking": {"addressing": [addresses], "node": host}},
    }


def api_server(*addresses: str) -> Object:
    """The EndpointSlice of the service `kubernetes`."""
    return {
        "apiVersion": ENDPOINT_SLICE.api_version,
        "kind": ENDPOINT_SLICE.kind,
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": list(addresses)}],
    }


def claim(prefix: str, identity: int, node: str = "", unresolved: bool = False) -> IpcacheClaim:
    return IpcacheClaim(prefix=prefix, identity=identity, node=node, unresolved=unresolved)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    """An agent of node `here` with nothing but the plugin, not started yet."""
    settings = Settings()
    tree = {
        "plugins": ["kubernetes"],
        "node": {"name": "here", "run_dir": str(tmp_path), "state_dir": str(tmp_path), "bpffs": str(tmp_path)},
        "store": {"driver": "local", "path": str(tmp_path / "store.db")},
        "events": {"drain": "none"},
    }
    settings.set("", tree, "test")
    host = Host.load(settings, "agent", "agent")
    yield host
    await host.stop()


async def claims(host: Host, wanted: set[IpcacheClaim]) -> None:
    """Wait until the table has exactly these."""
    reader = host.tables.reader(CLAIMS)
    try:
        async with asyncio.timeout(10):
            async for _ in reader.changes():
                if reader.complete and set(reader.rows.values()) == wanted:
                    return
    except TimeoutError:
        assert set(reader.rows.values()) == wanted


async def places(host: Host, wanted: dict[str, str]) -> None:
    """Wait until the API server is known to be where it is."""
    reader = host.tables.reader(API_SERVERS)
    async with asyncio.timeout(10):
        async for _ in reader.changes():
            if {row.address: row.place for row in reader.rows.values()} == wanted:
                return


async def apply(store: Store, *objects: Object) -> None:
    for obj in objects:
        await store.apply(obj, "tests")


HERE = node("here", ("InternalIP", "10.0.0.1"), ("CiliumInternalIP", "10.1.1.1"), ranges=("10.1.1.0/24",))
THERE = node(
    "there",
    ("Hostname", "there"),
    ("InternalIP", "10.0.0.2"),
    ("InternalIP", "fd00::2"),
    ("CiliumInternalIP", "10.1.2.1"),
    ("CiliumInternalIP", "fd01:2::1"),
    ranges=("10.1.2.0/24", "fd01:2::/120"),
)
OF_THERE = {
    claim("10.0.0.2/32", Reserved.REMOTE_NODE, "10.0.0.2"),
    claim("fd00::2/128", Reserved.REMOTE_NODE, "fd00::2"),
    claim("10.1.2.1/32", Reserved.REMOTE_NODE, "10.0.0.2"),
    claim("fd01:2::1/128", Reserved.REMOTE_NODE, "fd00::2"),
    claim("10.1.2.0/24", 0, "10.0.0.2", unresolved=True),
    claim("fd01:2::/120", 0, "fd00::2", unresolved=True),
}
WEB = endpoint("web", 4711, "10.0.0.2", ipv4="10.1.2.7", ipv6="fd01:2::7")
OF_WEB = {claim("10.1.2.7/32", 4711, "10.0.0.2"), claim("fd01:2::7/128", 4711, "10.0.0.2")}


async def test_other_nodes_and_their_pods_are_claimed_and_let_go(host: Host) -> None:
    await host.start()
    await apply(host.store, HERE, THERE, WEB, endpoint("own", 4712, "10.0.0.1", ipv4="10.1.1.9"))
    await claims(host, OF_THERE | OF_WEB)
    await apply(host.store, endpoint("web", 4800, "10.0.0.2", ipv4="10.1.2.8"))
    await claims(host, OF_THERE | {claim("10.1.2.8/32", 4800, "10.0.0.2")})
    await host.store.delete(CILIUM_ENDPOINT, "web", "shop")
    await host.store.delete(CILIUM_NODE, "there")
    await claims(host, set())


async def test_of_two_pods_with_one_address_the_later_counts_and_the_other_is_not_forgotten(host: Host) -> None:
    await apply(host_store := _store(host), HERE, endpoint("old", 4000, "10.0.0.2", ipv4="10.1.2.7"))
    await apply(host_store, endpoint("new", 5000, "10.0.0.2", ipv4="10.1.2.7"))
    await host_store.close()
    await host.start()
    await claims(host, {claim("10.1.2.7/32", 5000, "10.0.0.2")})
    await host.store.delete(CILIUM_ENDPOINT, "new", "shop")
    await claims(host, {claim("10.1.2.7/32", 4000, "10.0.0.2")})


def _store(host: Host) -> Store:
    return open_store(host.config, host.kinds())


async def test_what_went_while_the_agent_was_down_goes_when_all_is_known(host: Host, tmp_path: Path) -> None:
    await host.start()
    await apply(host.store, HERE, THERE, WEB)
    await claims(host, OF_THERE | OF_WEB)
    await host.stop()
    store = _store(host)
    await store.delete(CILIUM_ENDPOINT, "web", "shop")
    await store.close()
    again = Host.load(host.settings, "agent", "agent")
    await again.start()
    await claims(again, OF_THERE)
    await again.stop()


async def test_the_api_server_is_found_wherever_it_is(host: Host) -> None:
    await host.start()
    await apply(host.store, HERE, THERE, api_server("10.0.0.2", "10.0.0.1", "203.0.113.9"))
    await places(host, {"10.0.0.2": "node", "10.0.0.1": "host", "203.0.113.9": "outside"})
    server = claim("10.0.0.2/32", Reserved.KUBE_APISERVER, "10.0.0.2")
    await claims(host, {one for one in OF_THERE if one.prefix != "10.0.0.2/32"} | {server})
    await apply(host.store, api_server("203.0.113.9"))
    await places(host, {"203.0.113.9": "outside"})
    await claims(host, OF_THERE)
    await apply(host.store, node("late", ("InternalIP", "203.0.113.9")))
    await places(host, {"203.0.113.9": "node"})


async def test_what_is_not_looked_at_is_not_waited_for(host: Host) -> None:
    host.settings.set("kubernetes", {"endpoints": False, "nodes": False, "api_server": False}, "test")
    await host.start()
    await apply(host.store, THERE, WEB, api_server("10.0.0.2"))
    await claims(host, set())
    assert host.ready() == {}


NONSENSE: list[Any] = [None, 7, "x", [], {}, {"addresses": 7}, {"addresses": [7, {"type": "InternalIP"}]}]


@pytest.mark.parametrize("spec", [*NONSENSE, {"ipam": []}, {"ipam": {"podCIDRs": ["10.0.0.0/99", None, 7]}}])
def test_a_node_of_nonsense_claims_nothing_and_that_is_said(spec: Any) -> None:
    said: list[str] = []
    found = read_node({"metadata": {"name": "n"}, "spec": spec}, said.append)
    assert node_claims(found) == range_claims(found) == []
    assert said or spec in (None, {}), spec


@pytest.mark.parametrize(
    "status",
    [
        {"identity": {"id": "many"}, "networking": {"addressing": [{"ipv4": "10.1.2.7"}]}},
        {"identity": {"id": 2**24 + 1}, "networking": {"addressing": [{"ipv4": "10.1.2.7"}]}},
        {"identity": {"id": 300}, "networking": {"addressing": [{"ipv4": "10.1.2"}], "node": "10.0.0.2"}},
        {"identity": {"id": 300}, "networking": {"addressing": [{"ipv4": "10.1.2.7"}], "node": "there"}},
        {"identity": 300, "networking": {"addressing": 7}},
        "ready",
        [],
    ],
)
def test_an_endpoint_of_nonsense_claims_nothing_and_that_is_said(status: Any) -> None:
    said: list[str] = []
    assert endpoint_claims({"metadata": {"name": "x"}, "status": status}, said.append) == []
    assert said


def test_good_parts_of_a_malformed_object_count() -> None:
    said: list[str] = []
    spec = {"addresses": [{"type": "InternalIP", "ip": "10.0.0"}, {"type": "InternalIP", "ip": "10.0.0.2"}, 7]}
    found = read_node(
        {"metadata": {"name": "n"}, "spec": {**spec, "ipam": {"podCIDRs": ["x", "10.1.2.0/24"]}}}, said.append
    )
    assert found.internal == ("10.0.0.2",) and found.ranges == ("10.1.2.0/24",)
    assert len(said) == 3 and all(":" in reason for reason in said)


def test_health_and_ingress_of_a_node_have_their_identities() -> None:
    found = read_node(
        node("n", ("InternalIP", "10.0.0.2"), health={"ipv4": "10.1.2.3"}, ingress={"ipv6": "fd01:2::5"}), _never
    )
    assert claim("10.1.2.3/32", Reserved.HEALTH, "10.0.0.2") in node_claims(found)
    assert claim("fd01:2::5/128", Reserved.INGRESS, "10.0.0.2") in node_claims(found)


def _never(reason: str) -> None:
    raise AssertionError(reason)
