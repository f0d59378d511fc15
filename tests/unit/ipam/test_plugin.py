"""The plugin in a real host, on a real store: one agent, many, an operator; overlaps; restarts."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from ciliate.config import Settings
from ciliate.host import Host
from ciliate.model.ipam import NODE_RANGES, Ipam
from ciliate.model.kinds import CILIUM_NODE, NODE
from ciliate.recorder import EVENT
from ciliate.store import Object, Store
from ciliate_ipam import plugin
from ciliate_ipam.host_networks import node_addresses, overlaps, read_host_networks
from ciliate_ipam.ledger import CONFIG_MAP, hand_out, operator_error, pod_cidrs
from ciliate_store_local.driver import LocalStore

StartHost = Callable[..., Awaitable[Host]]
FREE = {"cluster_pool_ipv4_cidr": "10.77.0.0/16", "cluster_pool_ipv6_cidr": "fd77::/104"}


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[StartHost]:
    """Starts hosts of any name and role on one store."""
    hosts: list[Host] = []

    async def start_one(name: str, role: str = "agent", **ipam: Any) -> Host:
        folder = tmp_path / name
        tree = {
            "plugins": ["ipam"],
            "node": {"name": name, "run_dir": str(folder), "state_dir": str(folder), "bpffs": str(folder)},
            "store": {"driver": "local", "path": str(tmp_path / "store.db")},
            "events": {"drain": "none"},
            "ipam": {**FREE, **ipam},
        }
        settings = Settings()
        settings.set("", tree, "test")
        host = Host.load(settings, role, role)
        hosts.append(host)
        await host.start()
        assert not host.loaded.refused, host.loaded.refused
        return host

    yield start_one
    for host in hosts:
        await host.stop()


async def ready(host: Host) -> Ipam:
    """The address service, once the node has its ranges."""
    ipam = host.services.require(Ipam, "test")  # type: ignore[type-abstract]
    async with asyncio.timeout(10):
        while not ipam.ranges() or host.ready():
            await asyncio.sleep(0.01)
    return ipam


async def node(store: Store, name: str, satisfied: Callable[[Object], bool] = bool) -> Object:
    async with asyncio.timeout(10):
        while True:
            found = {n["metadata"]["name"]: n for n in (await store.list(CILIUM_NODE)).items}.get(name, {})
            if found and satisfied(found):
                return found
            await asyncio.sleep(0.01)


async def test_an_agent_alone_gets_ranges_and_gives_addresses(start: StartHost) -> None:
    host = await start("n1")
    ipam = await ready(host)
    given = ipam.allocate("default/web", "c1/eth0")
    assert given.ipv4 == "10.77.0.2" and given.ipv6 == "fd77::2"
    assert host.tables.reader(NODE_RANGES).complete
    found = await node(host.store, "n1", lambda n: len(n["spec"]["addresses"]) > 1)
    routers = [a["ip"] for a in found["spec"]["addresses"] if a["type"] == "CiliumInternalIP"]
    assert routers == ["10.77.0.1", "fd77::1"]
    internal = [a["ip"] for a in found["spec"]["addresses"] if a["type"] == "InternalIP"]
    assert internal == node_addresses(await asyncio.to_thread(read_host_networks))


async def test_a_restarted_agent_has_the_same_ranges_and_addresses(start: StartHost) -> None:
    host = await start("n1")
    ipam = await ready(host)
    given, ranges = ipam.allocate("default/web", "c1/eth0"), ipam.ranges()
    await host.stop()
    again = await start("n1")
    ipam = again.services.require(Ipam, "test")  # type: ignore[type-abstract]
    assert ipam.ranges() == ranges, "known at once, before the store has answered"
    assert ipam.attachments() == {"c1/eth0": given}
    await ready(again)
    assert ipam.ranges() == ranges


async def test_agents_and_operators_at_once_never_overlap(start: StartHost) -> None:
    await start("operator", role="operator")
    hosts = await asyncio.gather(*(start(f"n{n}") for n in range(6)))
    ranges = [r.cidr for host in hosts for r in (await ready(host)).ranges()]
    assert len(set(ranges)) == 12
    for one, other in combinations(ranges, 2):
        a, b = ipaddress.ip_network(one), ipaddress.ip_network(other)
        assert a.version != b.version or not a.overlaps(b)


async def test_many_stores_handing_out_at_once_agree(tmp_path: Path, start: StartHost) -> None:
    await start("operator", role="operator")
    stores = [LocalStore({"path": str(tmp_path / "store.db")}, [CONFIG_MAP]) for _ in range(4)]
    network = ipaddress.ip_network("10.99.0.0/16")
    for n in range(40):
        await stores[0].create({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": f"m{n}"}})
    await asyncio.gather(*(hand_out(store, {4: ([network], 24)}) for store in stores))
    cidrs = [cidr for n in (await stores[0].list(CILIUM_NODE)).items for cidr in pod_cidrs(n) if "." in cidr]
    assert len(cidrs) == len(set(cidrs)) == 40
    for store in stores:
        await store.close()


async def test_an_agent_waits_for_the_operator_if_told_to(start: StartHost) -> None:
    host = await start("n1", cluster_pool_assigned_by="operator")
    await node(host.store, "n1")
    async with asyncio.timeout(10):
        while "operator, to write spec.ipam.podCIDRs of ciliumnode n1" not in str(host.ready()):
            await asyncio.sleep(0.01)
    await start("operator", role="operator", cluster_pool_assigned_by="operator")
    await ready(host)


async def test_a_deleted_node_object_comes_back_with_its_ranges(start: StartHost) -> None:
    host = await start("n1")
    ranges = [r.cidr for r in (await ready(host)).ranges()]
    first = await node(host.store, "n1")
    await host.store.delete(CILIUM_NODE, "n1")
    uid = first["metadata"]["uid"]
    found = await node(host.store, "n1", lambda n: n["metadata"]["uid"] != uid and bool(pod_cidrs(n)))
    assert pod_cidrs(found) == ranges


async def test_the_range_of_a_node_that_is_gone_is_given_to_another(start: StartHost) -> None:
    host = await start("n1")
    ranges = [r.cidr for r in (await ready(host)).ranges()]
    await host.stop()
    store = (await start("operator", role="operator")).store
    await store.delete(CILIUM_NODE, "n1")
    async with asyncio.timeout(10):
        while "n1" in (await store.get(CONFIG_MAP, "ciliate-ipam", "kube-system"))["data"]["ranges"]:
            await asyncio.sleep(0.01)
    assert [r.cidr for r in (await ready(await start("n2"))).ranges()] == ranges


async def test_exhausted_pools_are_told_in_the_nodes_status(start: StartHost) -> None:
    small = {"cluster_pool_ipv4_cidr": "10.77.0.0/24", "ipv6": False}
    await ready(await start("n1", **small))
    host = await start("n2", **small)
    found = await node(host.store, "n2", lambda n: "status" in n)
    error = found["status"]["ipam"]["operator-status"]["error"]
    assert "no IPv4 range of /24 is free in the pools 10.77.0.0/24: 1 are in use" in error
    assert "10.77.0.0/24" in str(host.ready())
    await host.store.delete(CILIUM_NODE, "n1")


async def test_an_overlap_with_the_machines_own_network_is_named_before_any_use(start: StartHost) -> None:
    own = next(n for n in await asyncio.to_thread(read_host_networks) if n.network.version == 4 and n.kind == "address")
    around = str(ipaddress.ip_network((own.network.network_address, 24), strict=False))
    host = await start("n1", mode="host-scope", host_scope_ipv4_cidr=around, ipv6=False)
    async with asyncio.timeout(10):
        while f"pod range {around} overlaps with this machine's" not in (reason := str(host.ready())):
            await asyncio.sleep(0.01)
    assert str(own) in reason and "allow_overlap" in reason
    assert not host.services.require(Ipam, "test").ranges()  # type: ignore[type-abstract]
    allowed = await start("n2", mode="host-scope", host_scope_ipv4_cidr=around, ipv6=False, allow_overlap=around)
    await ready(allowed)
    pools = await start("n3", cluster_pool_ipv4_cidr=around, ipv6=False)
    async with asyncio.timeout(10):
        while str(own) not in str(pools.ready()):
            await asyncio.sleep(0.01)


async def test_host_scope_publishes_its_ranges(start: StartHost) -> None:
    host = await start("n1", mode="host-scope", host_scope_ipv4_cidr="10.66.0.0/28", host_scope_ipv6_cidr="fd66::/112")
    ipam = await ready(host)
    assert ipam.allocate("a/b", "c/eth0").ipv4 == "10.66.0.2"
    found = await node(host.store, "n1", lambda n: bool(pod_cidrs(n)))
    assert pod_cidrs(found) == ["10.66.0.0/28", "fd66::/112"]


async def test_addresses_and_labels_of_the_kubernetes_node_are_taken_over(start: StartHost) -> None:
    store = (await start("operator", role="operator")).store
    await store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"zone": "z"}}})
    kube = await store.get(NODE, "n1")
    kube["status"] = {"addresses": [{"type": "InternalIP", "address": "192.0.2.77"}, {"type": "Odd", "address": "x"}]}
    await store.update_status(kube)
    await ready(await start("n1"))
    found = await node(store, "n1", lambda n: len(n["spec"]["addresses"]) == 3)
    assert found["metadata"]["labels"] == {"zone": "z"}
    assert [(o["kind"], o["uid"]) for o in found["metadata"]["ownerReferences"]] == [("Node", kube["metadata"]["uid"])]
    assert {"type": "InternalIP", "ip": "192.0.2.77"} in found["spec"]["addresses"]


async def test_a_label_that_the_kubernetes_node_loses_goes_from_its_ciliumnode_too(
    start: StartHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "_ADDRESSES_EVERY", 0.05)
    store = (await start("operator", role="operator")).store
    labels = {"zone": "z", "rack": "r"}
    kube = await store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}})
    await ready(await start("n1"))
    await node(store, "n1", lambda n: n["metadata"]["labels"] == labels and bool(pod_cidrs(n)))
    await store.patch(CILIUM_NODE, {"metadata": {"name": "n1", "labels": {"mine": "x"}}})
    await store.update({**kube, "metadata": {**kube["metadata"], "labels": {"zone": "y"}}})
    found = await node(store, "n1", lambda n: n["metadata"]["labels"].get("zone") == "y")
    assert (found["metadata"]["labels"], len(pod_cidrs(found))) == ({"zone": "y", "mine": "x"}, 2)


NONSENSE: list[Any] = [
    {"ipam": {"podCIDRs": ["10.77.0.0/33"]}},
    {"ipam": {"podCIDRs": "everything"}},
    {"ipam": {"podCIDRs": [{"cidr": 1}, 7]}},
    {"ipam": {"podCIDRs": []}},
    {"ipam": "nonsense", "addresses": [{"type": "InternalIP", "ip": "300.1.1.1"}, 3]},
    {"ipam": None, "addresses": "here"},
    "nonsense",
]


@pytest.mark.parametrize("spec", NONSENSE)
async def test_nonsense_in_a_nodes_object_is_put_right_and_keeps_no_other_node_from_its_ranges(
    start: StartHost, spec: Any
) -> None:
    first = await start("n1")
    ranges = [r.cidr for r in (await ready(first)).ranges()]
    operator = await start("operator", role="operator")
    current = await node(first.store, "n1")
    await first.store.update({**current, "spec": spec})
    await node(first.store, "n1", lambda n: isinstance(n["spec"], dict) and pod_cidrs(n) == ranges)
    await ready(await start("n2"))
    assert [r.cidr for r in (await ready(first)).ranges()] == ranges
    assert not operator.ready()


async def test_a_range_that_another_node_has_is_put_back_and_named(start: StartHost) -> None:
    hosts = [await start("n1"), await start("n2")]
    mine, other = [[r.cidr for r in (await ready(host)).ranges()] for host in hosts]
    store = (await start("operator", role="operator")).store
    current = await node(store, "n2")
    await store.update({**current, "spec": {**current["spec"], "ipam": {"podCIDRs": mine}}})
    await node(store, "n2", lambda n: pod_cidrs(n) == other)
    async with asyncio.timeout(10):
        while not (events := (await store.list(EVENT)).items):
            await asyncio.sleep(0.01)
    assert (events[0]["involvedObject"]["name"], events[0]["reason"]) == ("n2", "NoPodRange")
    assert f"{mine[0]} overlaps with {mine[0]}, which node n1 has" in events[0]["message"]
    await node(store, "n2", lambda n: not operator_error(n))
    await node(store, "n1", lambda n: pod_cidrs(n) == mine)


async def test_ciliumnodes_of_nodes_that_are_gone_are_deleted_and_no_others(start: StartHost) -> None:
    store = (await start("operator", role="operator", nodes_gc_interval=0.05)).store
    await store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    owner = {"apiVersion": "v1", "kind": "Node", "uid": "u"}
    for name, owners in {"n1": [{**owner, "name": "n1"}], "n2": [{**owner, "name": "n2"}], "n3": [], "n4": "x"}.items():
        metadata = {"name": name, "ownerReferences": owners}
        await store.create({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": metadata})
    async with asyncio.timeout(10):
        while {n["metadata"]["name"] for n in (await store.list(CILIUM_NODE)).items} != {"n1", "n3", "n4"}:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"cluster_pool_ipv4_cidr": "10.0.0.0/33"}, "ipam.cluster_pool_ipv4_cidr"),
        ({"cluster_pool_ipv4_cidr": "fd00::/64"}, "is not IPv4"),
        ({"cluster_pool_ipv4_cidr": ""}, "ipam.ipv4 to false"),
        ({"cluster_pool_ipv4_mask_size": 31}, "from 16 .*to 30"),
        ({"cluster_pool_ipv6_mask_size": 64}, "from 104"),
        ({"cluster_pool_ipv6_cidr": ["fd00::/104", "fd00::/110"]}, "overlaps"),
        ({"mode": "hots-scope"}, "no driver 'hots-scope'.*cluster-pool, host-scope"),
        ({"mode": "host-scope"}, "host_scope_ipv4_cidr: is empty"),
        ({"allow_overlap": "here"}, "allow_overlap"),
    ],
)
async def test_settings_that_can_not_be_are_refused_by_name(start: StartHost, setting: Any, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        await start("n1", **setting)


def test_networks_inside_allowed_prefixes_do_not_count() -> None:
    host = read_host_networks()
    everything = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    assert overlaps("0.0.0.0/0", host) and not overlaps("0.0.0.0/0", host, everything)
