"""CiliumEndpoints of a node's pods, in a real store; the test writes the tables in place of cni and policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from ciliate.config import Settings
from ciliate.health import Health
from ciliate.host import Host
from ciliate.model.endpoint import ENDPOINT_POLICIES, ENDPOINTS, Endpoint, EndpointPolicy, NamedPort
from ciliate.model.identity import IDENTITIES, Identity
from ciliate.model.kinds import CILIUM_ENDPOINT, CILIUM_NODE
from ciliate.store import NotFoundError, Object, Store
from ciliate_cni import endpoint_objects
from ciliate_cni.collection import stale
from ciliate_cni.endpoint_objects import EndpointObjects, covers, internal_address
from ciliate_cni.plugin import CniPlugin
from msgspec import structs

LIMIT = 10.0
LABELS = (
    "k8s:app=web", "k8s:io.cilium.k8s.namespace.labels.team=a", "k8s:io.cilium.k8s.policy.cluster=default",
    "k8s:io.cilium.k8s.policy.serviceaccount=sa", "k8s:io.kubernetes.pod.namespace=default",
)  # fmt: skip


class Node:
    """A node's tables, and the objects at work on them."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.store: Store = host.store
        self.endpoints = host.tables.writer(ENDPOINTS, "test")
        self.policies = host.tables.writer(ENDPOINT_POLICIES, "test")
        self.identities = host.tables.writer(IDENTITIES, "test")
        self.identities.put(Identity(id=300, labels=LABELS))
        context = host._context("cni", CniPlugin(), Health("cni"))
        self.objects = EndpointObjects(context)
        self.task = asyncio.create_task(self.objects.run())

    def add(self, number: int, pod: str = "web", uid: str = "u1", realised: bool = True, **more: Any) -> Endpoint:
        """An endpoint."""
        row = Endpoint(
            id=number, generation=1, container_id=f"c{number}", interface="eth0", netns="", namespace="default",
            pod=pod, pod_uid=uid, ipv4=f"10.0.0.{number}", ipv6=f"fd00::{number}", labels=LABELS, **more,
        )  # fmt: skip
        self.endpoints.put(row)
        if realised:
            self.realise(row)
        return row

    def realise(self, row: Endpoint, **more: Any) -> None:
        """Its policy is in the kernel."""
        self.policies.put(
            EndpointPolicy(
                id=row.id,
                generation=row.generation,
                identity=300,
                ingress_policy=1,
                egress_policy=1,
                revision=1,
                **more,
            )
        )

    async def until(self, wanted: Callable[[Object], Any], pod: str = "web") -> Object:
        """A pod's object, once it is as wanted; {} stands for none."""
        found: Object = {}
        try:
            async with asyncio.timeout(LIMIT):
                while True:
                    try:
                        found = await self.store.get(CILIUM_ENDPOINT, pod, "default")
                    except NotFoundError:
                        found = {}
                    if wanted(found):
                        return found
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{pod}: {found}") from None


@asynccontextmanager
async def running(tmp_path: Path, name: str = "n1", address: str = "192.0.2.1") -> AsyncIterator[Node]:
    """A node; its tables are kept between two calls."""
    folder = tmp_path / name
    tree = {
        "plugins": [],
        "node": {"name": name, "run_dir": str(folder), "state_dir": str(folder), "bpffs": str(folder)},
        "store": {"driver": "local", "path": str(tmp_path / "store.db")},
        "events": {"drain": "none"},
    }
    settings = Settings()
    settings.set("", tree, "test")
    host = Host.load(settings, "agent", "agent")
    await host.start()
    node = Node(host)
    try:
        spec = {"addresses": [{"type": "InternalIP", "ip": address}]}
        new = {"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": name}, "spec": spec}
        await host.store.apply(new, "test")
        yield node
        assert not node.task.done(), node.task
    finally:
        node.task.cancel()
        await asyncio.gather(node.task, return_exceptions=True)
        await host.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pauses that only spare others."""
    monkeypatch.setattr(endpoint_objects, "PATIENCE", 0.3)
    monkeypatch.setattr(endpoint_objects, "MEND_AFTER", 0.05)


async def test_a_pods_object_says_what_cilium_says_and_goes_with_the_pod(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        node.endpoints.complete()
        row = node.add(7, named_ports=(NamedPort(name="http", port=80, protocol="TCP"),))
        found = await node.until(lambda found: found)
        assert found["metadata"]["labels"] == {"app": "web"}
        owner = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u1"}
        assert found["metadata"]["ownerReferences"] == [owner]
        assert found["status"] == {
            "id": 7,
            "state": "ready",
            "external-identifiers": {
                "cni-attachment-id": "c7:eth0",
                "container-id": "c7",
                "k8s-namespace": "default",
                "k8s-pod-name": "web",
                "pod-name": "default/web",
            },
            "networking": {"addressing": [{"ipv4": "10.0.0.7", "ipv6": "fd00::7"}], "node": "192.0.2.1"},
            "encryption": {"key": 0},
            "named-ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            "service-account": "sa",
            "identity": {"id": 300, "labels": list(LABELS)},
            "policy": {
                "ingress": {"enforcing": False, "state": "non-enforcing"},
                "egress": {"enforcing": False, "state": "non-enforcing"},
            },
        }
        node.realise(row, ingress_enforcing=True)
        await node.until(lambda found: found["status"]["policy"]["ingress"]["enforcing"])
        node.endpoints.delete(7)
        await node.until(lambda found: not found)


async def test_a_pod_is_written_once_its_policy_is_there_or_when_that_takes_long(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        node.endpoints.complete()
        row = node.add(7, realised=False)
        found = await node.until(lambda found: found)
        assert found["status"]["state"] == "waiting-for-identity" and "identity" not in found["status"]
        node.realise(row)
        await node.until(lambda found: found["status"]["state"] == "ready" and found["status"]["identity"]["id"] == 300)
        revision = found["metadata"]["resourceVersion"]
        second = node.add(8, pod="api", uid="u2")
        found = await node.until(lambda found: found, pod="api")
        assert found["status"]["state"] == "ready" and found["metadata"]["resourceVersion"] != revision
        node.endpoints.put(structs.replace(second, pod_uid=""))  # a container that no Kubernetes knows
        await node.until(lambda found: not found, pod="api")


async def test_what_was_missed_while_the_agent_was_down_is_made_up_for(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        node.endpoints.complete()
        for number, pod in ((7, "web"), (8, "gone"), (9, "changed")):
            node.add(number, pod=pod, uid=f"u{number}")
            await node.until(lambda found: found, pod=pod)
    async with running(tmp_path) as node:
        written = await node.until(lambda found: found)
        node.endpoints.delete(8)
        node.endpoints.complete()
        node.realise(node.endpoints.rows[9], egress_enforcing=True)
        await node.until(lambda found: found["status"]["policy"]["egress"]["enforcing"], pod="changed")
        await node.until(lambda found: not found, pod="gone")
        assert await node.until(lambda found: found) == written  # not written again


async def test_nothing_is_deleted_on_the_word_of_an_incomplete_table(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        node.endpoints.complete()
        node.add(7)
        await node.until(lambda found: found)
    async with running(tmp_path) as node:
        node.endpoints.delete(7)  # as if the rows were lost
        node.add(8, pod="api", uid="u2")
        await node.until(lambda found: found, pod="api")
        await node.until(lambda found: found)
        node.endpoints.complete()
        await node.until(lambda found: not found)


NONSENSE: list[Any] = [
    {"identity": {"id": 999}},
    {"networking": {"node": "203.0.113.9"}},
    {"networking": "nowhere"},
    {"state": None},
]


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_an_object_that_somebody_edits_or_deletes_is_put_right(tmp_path: Path, nonsense: Any) -> None:
    async with running(tmp_path) as node:
        node.add(7)
        right = (await node.until(lambda found: found))["status"]
        named = {"name": "web", "namespace": "default"}
        await node.store.patch(CILIUM_ENDPOINT, {"metadata": named, "status": nonsense})
        await node.until(lambda found: found.get("status") == right)
        await node.store.patch(CILIUM_ENDPOINT, {"metadata": named, "status": None})
        await node.until(lambda found: found.get("status") == right)
        await node.store.delete(CILIUM_ENDPOINT, "web", "default")
        await node.until(lambda found: found.get("status") == right)


async def test_a_pod_that_comes_back_elsewhere_keeps_its_new_object(tmp_path: Path) -> None:
    async with running(tmp_path) as old, running(tmp_path, "n2", "192.0.2.2") as new:
        old.endpoints.complete()
        old.add(7)
        await old.until(lambda found: found)
        new.add(3, uid="u2")
        await new.until(lambda found: found["status"]["networking"]["node"] == "192.0.2.2")
        old.endpoints.delete(7)
        old.add(8, pod="later", uid="u3")
        await old.until(lambda found: found, pod="later")
        found = await new.until(lambda found: found)
        assert [owner["uid"] for owner in found["metadata"]["ownerReferences"]] == ["u2"]


async def test_a_sandbox_made_anew_takes_the_object_over(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        node.endpoints.complete()
        node.add(7)
        await node.until(lambda found: found)
        node.add(8)
        await node.until(lambda found: found["status"]["id"] == 8)
        node.endpoints.delete(7)
        node.add(9, pod="later", uid="u3")
        await node.until(lambda found: found, pod="later")
        assert (await node.until(lambda found: found))["status"]["id"] == 8


async def test_the_objects_name_the_nodes_new_address(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        node.add(7)
        await node.until(lambda found: found)
        addresses = [{"type": "InternalIP", "ip": "fd01::1"}, {"type": "InternalIP", "ip": "192.0.2.9"}]
        await node.store.patch(CILIUM_NODE, {"metadata": {"name": "n1"}, "spec": {"addresses": addresses}})
        await node.until(lambda found: found["status"]["networking"]["node"] == "192.0.2.9")


def test_which_objects_nobody_keeps() -> None:
    def endpoint(uid: str) -> Object:
        return {"metadata": {"name": "web", "ownerReferences": [{"kind": "Pod", "uid": uid}] if uid else "x"}}

    def pod(phase: str) -> Object:
        return {"metadata": {"name": "web", "uid": "u1"}, "status": {"phase": phase}}

    assert stale(endpoint("u1"), None) == "its pod is gone"
    assert stale(endpoint("u0"), pod("Running")) == "it is an earlier pod's of this name"
    assert stale(endpoint("u1"), pod("Failed")) == "its pod has ended (Failed)"
    assert not stale(endpoint("u1"), pod("Pending"))
    assert not stale(endpoint(""), pod("Running"))


def test_addresses_of_a_node_edited_into_nonsense_are_no_addresses() -> None:
    assert internal_address({"spec": {"addresses": [{"type": "InternalIP", "ip": "192.0.2.1"}, 3]}}) == "192.0.2.1"
    for spec in ("x", {"addresses": "y"}, {"addresses": [{"type": "Hostname", "ip": "n"}]}, None):
        assert internal_address({"spec": spec}) == ""
    assert covers({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}) and not covers({"a": [1]}, {"a": [1, 2]})
