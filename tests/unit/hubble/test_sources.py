"""Names come from the tables of other plugins and the objects of the store; agent events from their changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ciliate.model.base import pack_address
from ciliate.model.endpoint import ENDPOINTS, Endpoint, EndpointPolicy
from ciliate.model.ipcache import IPCACHE, IpcacheEntry
from ciliate.model.kinds import POD
from ciliate.model.policy import PolicyRevision
from ciliate.tables.file import TableFile
from ciliate.tables.hub import PluginTables, Tables
from ciliate_hubble.api import flow_pb2 as pb
from ciliate_hubble.api.observer_pb2 import GetAgentEventsResponse
from ciliate_hubble.ends import Workload
from ciliate_hubble.names import GONE_KEPT, PodName, Remembered
from ciliate_hubble.observer.agent_events import AgentEvents
from ciliate_hubble.observer.span import Span
from ciliate_hubble.sources.following import Following
from ciliate_hubble.sources.notices import Notices
from ciliate_hubble.sources.objects import of_endpoint, of_pod, pod_source, workload_of
from ciliate_store_local.driver import LocalStore

from tests.unit.hubble.node import Node
from tests.unit.hubble.test_ingest import running, until


def pod_object(name: str, *ips: str, **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop", **fields.pop("metadata", {})}
    spec = fields.pop("spec", {"containers": []})
    status = {"podIPs": [{"ip": ip} for ip in ips], **fields}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def owner(kind: str, name: str) -> dict[str, Any]:
    return {"ownerReferences": [{"kind": kind, "name": name, "controller": True}]}


DEPLOYMENT_CONFIG = {"annotations": {"openshift.io/deployment-config.name": "dc"}}


@pytest.mark.parametrize(
    ("metadata", "workload"),
    [
        ({}, Workload("Pod", "p")),
        ({"ownerReferences": [{"kind": "Node", "name": "n"}]}, Workload("Pod", "p")),
        (owner("DaemonSet", "d"), Workload("DaemonSet", "d")),
        ({**owner("ReplicaSet", "web-6d5f"), "labels": {"pod-template-hash": "6d5f"}}, Workload("Deployment", "web")),
        (owner("ReplicaSet", "own"), Workload("ReplicaSet", "own")),
        (owner("Job", "tidy-28512345"), Workload("CronJob", "tidy")),
        (owner("Job", "once"), Workload("Job", "once")),
        ({**owner("ReplicationController", "rc"), **DEPLOYMENT_CONFIG}, Workload("DeploymentConfig", "dc")),
    ],
)
def test_a_pods_workload_is_what_it_belongs_to(metadata: dict[str, Any], workload: Workload) -> None:
    assert workload_of(pod_object("p", metadata=metadata)) == workload


def test_addresses_that_are_not_a_pods_alone_name_nobody() -> None:
    packed = (pack_address("10.0.1.5"), pack_address("fd00:1::5"))
    assert of_pod(pod_object("p", "10.0.1.5", "fd00:1::5"))[0] == packed
    assert of_pod(pod_object("p", "172.30.0.1", spec={"hostNetwork": True}))[0] == ()
    assert of_pod(pod_object("p", "10.0.1.5", phase="Succeeded"))[0] == ()
    assert of_pod({**pod_object("p"), "status": {}})[0] == ()
    addressing = [{"ipv4": "10.0.1.5", "ipv6": "fd00:1::5"}]
    assert of_endpoint({"metadata": {"name": "p"}, "status": {"networking": {"addressing": addressing}}})[0] == packed
    assert of_endpoint({"metadata": {"name": "p"}})[0] == ()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    store = LocalStore({"path": str(tmp_path / "store.sqlite")}, ())
    yield store
    await store.close()


async def test_pods_of_the_store_are_followed(store: LocalStore) -> None:
    node = Node()
    await store.create(pod_object("a", "10.0.1.5"))
    source = pod_source(store, node.names, "pods")
    assert source is not None
    assert pod_source(store, node.names, "none") is None
    address = pack_address("10.0.1.5")
    async with running(source.run()):
        created = await store.get(POD, "a", "shop")
        await store.update_status({**created, "status": {"podIPs": [{"ip": "10.0.1.5"}]}})
        await until(lambda: node.names.pod_at(address) == ("shop", "a"))
        await store.delete(POD, "a", "shop")
        created = await store.create(pod_object("b", "10.0.1.5"))
        await store.update_status({**created, "status": {"podIPs": [{"ip": "10.0.1.5"}]}})
        await until(lambda: node.names.pod_at(address) == ("shop", "b"))


def _readers(tables: Tables) -> PluginTables:
    return PluginTables(tables, "hubble", frozenset())


async def test_a_table_is_followed_and_only_its_changes_are_told(tmp_path: Path) -> None:
    tables = Tables(TableFile(tmp_path / "t.sqlite"))
    writer = tables.writer(IPCACHE, "policy")
    writer.put(IpcacheEntry(prefix="10.0.0.1/32", identity=256))
    put: list[str] = []
    deleted: list[str] = []
    told: list[tuple[Any, Any]] = []
    following = Following(
        _readers(tables), IPCACHE, lambda row: put.append(row.prefix), deleted.append, lambda *rows: told.append(rows)
    )
    async with running(following.run()):
        await until(lambda: put == ["10.0.0.1/32"])
        assert not told
        new = IpcacheEntry(prefix="10.0.0.1/32", identity=300)
        writer.put(new)
        await until(lambda: told == [(IpcacheEntry(prefix="10.0.0.1/32", identity=256), new)])
        writer.delete("10.0.0.1/32")
        await until(lambda: deleted == ["10.0.0.1/32"])
        assert told[-1] == (new, None)
    writer.put(new)
    async with running(following.run()):  # as after a failure of the task
        await until(lambda: len(put) == 3)
    tables.close()


class Told:
    """Notices of a node, as agent events are read."""

    def __init__(self) -> None:
        self.node = Node()
        self.events = AgentEvents(4, "node1")
        self.notices = Notices(self.node.names, self.events.add)

    async def read(self, span: Span | None = None) -> list[pb.AgentEvent]:
        messages = self.events.messages(span or Span())
        return [GetAgentEventsResponse.FromString(one).agent_event async for some in messages for one in some]


def endpoint(generation: int = 1) -> Endpoint:
    return Endpoint(
        id=5, generation=generation, container_id="c", interface="eth0", netns="", namespace="shop", pod="p",
        labels=("k8s:a=b",),
    )  # fmt: skip


async def test_endpoints_come_go_and_take_each_others_place() -> None:
    told = Told()
    told.notices.endpoint(None, endpoint())
    told.notices.endpoint(endpoint(), endpoint())
    told.notices.endpoint(endpoint(), endpoint(2))
    told.notices.endpoint(endpoint(2), None)
    events = await told.read()
    assert [event.type for event in events] == [
        pb.ENDPOINT_CREATED, pb.ENDPOINT_DELETED, pb.ENDPOINT_CREATED, pb.ENDPOINT_DELETED
    ]  # fmt: skip
    update = events[0].endpoint_update
    assert (update.id, update.namespace, update.pod_name, list(update.labels)) == (5, "shop", "p", ["k8s:a=b"])


async def test_policies_and_what_is_realised_of_them() -> None:
    told = Told()
    row = PolicyRevision(
        kind="CiliumNetworkPolicy", namespace="shop", name="web", uid="u", generation=2, revision=7, enforced=True
    )
    told.notices.policy(None, row)
    told.notices.policy(row, None)
    told.notices.endpoint_policy(
        None, EndpointPolicy(id=1, generation=1, identity=256, ingress_policy=1, egress_policy=1, revision=7)
    )
    updated, deleted, realised = await told.read()
    assert (updated.type, deleted.type) == (pb.POLICY_UPDATED, pb.POLICY_DELETED)
    assert updated.policy_update.revision == 7
    assert "k8s:io.cilium.k8s.policy.name=web" in updated.policy_update.labels
    assert realised.type == pb.ENDPOINT_REGENERATE_SUCCESS
    assert (realised.endpoint_regenerate.id, "k8s:app=web" in realised.endpoint_regenerate.labels) == (1, True)


async def test_prefixes_have_identities_others_and_none() -> None:
    told = Told()
    first = IpcacheEntry(prefix="10.0.1.9/32", identity=300, node="172.30.0.12")
    second = IpcacheEntry(prefix="10.0.1.9/32", identity=301, node="172.30.0.13")
    told.notices.prefix(None, first)
    told.notices.prefix(first, second)
    told.notices.prefix(second, None)
    told.notices.prefix(None, IpcacheEntry(prefix="10.0.0.0/8", identity=2))
    created, changed, deleted, wide = await told.read()
    assert [event.type for event in (created, changed, deleted)] == [
        pb.IPCACHE_UPSERTED, pb.IPCACHE_UPSERTED, pb.IPCACHE_DELETED
    ]  # fmt: skip
    upsert = created.ipcache_update
    assert (upsert.cidr, upsert.identity, upsert.host_ip) == ("10.0.1.9/32", 300, "172.30.0.12")
    assert (upsert.namespace, upsert.pod_name, upsert.HasField("old_identity")) == ("shop", "far-0", False)
    assert (changed.ipcache_update.old_identity.value, changed.ipcache_update.old_host_ip) == (300, "172.30.0.12")
    assert wide.ipcache_update.pod_name == ""


async def test_agent_events_are_read_like_flows() -> None:
    told = Told()
    for _ in range(6):
        told.notices.agent_started()
    assert len(await told.read()) == 4, "as many as are kept"
    assert len(await told.read(Span(number=2))) == 2
    assert len(await told.read(Span(number=1, first=True))) == 1
    assert len(await told.read(Span(since=2**62))) == 0
    assert len(await told.read(Span(until=1))) == 0
    event = (await told.read())[0]
    assert event.type == pb.AGENT_STARTED
    assert event.agent_start.time.seconds > 0


async def test_agent_events_are_followed() -> None:
    told = Told()
    told.notices.agent_started()
    found: list[bytes] = []

    async def read(span: Span) -> None:
        async for some in told.events.messages(span):
            found.extend(some)

    async with running(read(Span(follow=True))):
        for _ in range(3):
            await asyncio.sleep(0)
            told.notices.agent_started()
        await until(lambda: len(found) == 3)
    async with running(read(Span(follow=True, number=2))):
        await until(lambda: len(found) == 5)
        told.notices.agent_started()
        await until(lambda: len(found) == 6)


def test_what_is_gone_stays_known_until_its_key_is_given_anew() -> None:
    known: Remembered[int, str] = Remembered()
    known.put(1, "a")
    known.delete(1)
    known.delete(1)
    assert known.get(1) == "a"
    assert known.live == {}
    known.put(1, "b")
    assert known.get(1) == "b"
    for number in range(2, GONE_KEPT + 10):
        known.put(number, "x")
        known.delete(number)
    assert known.get(2) is None
    assert known.get(GONE_KEPT + 9) == "x"


async def test_endpoints_of_this_node_name_their_addresses(tmp_path: Path) -> None:
    tables = Tables(TableFile(tmp_path / "t.sqlite"))
    writer = tables.writer(ENDPOINTS, "cni")
    node = Node()
    following = Following(_readers(tables), ENDPOINTS, node.names.put_endpoint, node.names.delete_endpoint)
    async with running(following.run()):
        writer.put(msgspec.structs.replace(endpoint(), ipv4="10.0.0.7"))
        await until(lambda: node.names.pod_at(pack_address("10.0.0.7")) == ("shop", "p"))
    tables.close()
    assert node.names.gone([("shop", "p"), PodName(("n", "q"))]) == {("n", "q")}
