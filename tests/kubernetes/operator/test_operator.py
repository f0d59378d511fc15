"""What the operator does, as kubectl shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ciliate.host import Host
from ciliate.model.endpoint import ENDPOINT_POLICIES, ENDPOINTS, Endpoint, EndpointPolicy
from ciliate.model.identity import IDENTITIES, Identity
from ciliate.model.kinds import CILIUM_IDENTITY, CILIUM_NETWORK_POLICY, NODE
from ciliate.model.policy_report import PolicyDigest, report_of
from ciliate.store import ConflictError, Object, Store
from ciliate_cni.endpoint_objects import EndpointObjects
from ciliate_cni.plugin import CniPlugin
from ciliate_policy.allocator import Allocator, identity_object

from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.kubectl import Kubectl
from tests.kubernetes.operator.conftest import process

LIMIT = 30.0
TAINT = {"key": "node.cilium.io/agent-not-ready", "effect": "NoExecute"}
POLICY = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"endpointSelector": {}, "ingress": [{}], "egress": [{"toFQDNs": [{"matchName": "a.b"}]}]},
}


@pytest.fixture
def kubectl(plane: ControlPlane) -> Iterator[Kubectl]:
    """kubectl; what a test leaves is removed."""
    yield plane.kubectl
    for kinds, scope in (("cnp,cep,pods,events,leases", "-A"), ("nodes,cn,ciliumid", "")):
        plane.kubectl("delete", kinds, "--all", "--force", "--grace-period=0", *([scope] if scope else ()), check=False)
    plane.kubectl("delete", "leases,configmap/ciliate-ipam", "-n", "kube-system", check=False)


def node(name: str, *taints: Object) -> Object:
    """A Node as a kubelet registers it."""
    metadata = {"name": name, "labels": {"zone": "z"}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": list(taints)}}


def taints(found: Object) -> list[str]:
    """The keys of a Node's taints; the API server adds one of its own."""
    return [taint["key"] for taint in found["spec"]["taints"]]


async def until(find: Callable[[], Any], wanted: Callable[[Any], Any]) -> Any:
    """What is found (by a command, in a thread), once it is as wanted."""
    found = None
    try:
        async with asyncio.timeout(LIMIT):
            while not wanted(found := await asyncio.to_thread(find)):
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(found) from None
    return found


async def report(store: Store, name: str, *objects: Object) -> None:
    """A node says that it has these policies."""
    digest = PolicyDigest()
    for obj in objects:
        digest.put(obj["metadata"]["name"], obj["metadata"]["uid"], obj["metadata"]["generation"])
    await store.apply(report_of(name, "kube-system", {CILIUM_NETWORK_POLICY.kind: str(digest)}), "policy")


async def test_nodes_get_their_objects_their_ranges_and_their_pods(
    plane: ControlPlane, kubectl: Kubectl, tmp_path: Path
) -> None:
    kubectl.apply(node("n1", TAINT, {"key": "mine", "effect": "NoSchedule"}), node("n2", TAINT))
    async with process(plane, tmp_path, "operator", "o"), process(plane, tmp_path, "agent", "n1"):
        found = await until(
            lambda: kubectl.items("get", "cn"),
            lambda items: any(len(one["spec"].get("ipam", {}).get("podCIDRs", ())) == 2 for one in items),
        )
        assert [one["metadata"]["name"] for one in found] == ["n1"]
        assert found[0]["metadata"]["labels"] == {"zone": "z"}
        assert [owner["kind"] for owner in found[0]["metadata"]["ownerReferences"]] == ["Node"]
        columns = await until(lambda: kubectl("get", "cn", "n1").splitlines()[1].split(), lambda line: len(line) == 4)
        assert columns[1] == "10.77.0.1"
        admitted = await until(lambda: kubectl.json("get", "node", "n1"), lambda one: TAINT["key"] not in taints(one))
        assert "mine" in taints(admitted)
        conditions = {one["type"]: one for one in admitted["status"]["conditions"]}
        assert (conditions["NetworkUnavailable"]["status"], conditions["NetworkUnavailable"]["reason"]) == (
            "False",
            "CiliumIsUp",
        )
        assert TAINT["key"] in taints(kubectl.json("get", "node", "n2"))


async def test_a_policys_status_says_where_it_is_enforced_and_what_is_not(
    plane: ControlPlane, kubectl: Kubectl, tmp_path: Path
) -> None:
    for name in ("n1", "n2"):
        kubectl.apply({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": name}})
    async with process(plane, tmp_path, "operator", "o") as operator:
        kubectl.apply(POLICY)

        def enforced() -> str:
            path = "{.status.conditions[?(@.type=='Enforced')].message}"
            return kubectl("get", "cnp", "web", "-o", f"jsonpath={path}")

        await until(enforced, "generation 1 is enforced on 0 of 2 nodes; not on n1, n2".__eq__)
        stored = await operator.store.get(CILIUM_NETWORK_POLICY, "web", "default")
        await report(operator.store, "n1", stored)
        await until(enforced, "generation 1 is enforced on 1 of 2 nodes; not on n2".__eq__)
        await report(operator.store, "n2", stored)
        await until(enforced, "generation 1 is enforced on 2 of 2 nodes".__eq__)
        kubectl("wait", "--for=condition=Enforced", "cnp/web", "--timeout=10s")
        assert kubectl("get", "cnp", "web").splitlines()[1].split()[2:] == ["True", "True"]
        described = await until(
            lambda: kubectl("describe", "cnp", "web"), lambda text: "PolicyNotEnforcedWhole" in text
        )
        assert "spec.egress[0].toFQDNs: toFQDNs is not enforced yet" in described
        kubectl("patch", "cnp", "web", "--type=merge", "-p", '{"spec":{"egress":null}}')
        await until(enforced, "generation 2 is enforced on 0 of 2 nodes; not on n1, n2".__eq__)
        conditions = kubectl.json("get", "cnp", "web")["status"]["conditions"]
        assert [one["type"] for one in conditions] == ["Valid", "Enforced"]


async def test_two_operators_take_turns(plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl.apply({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": "n1"}})

    def leading(*hosts: Host) -> list[Host]:
        return [host for host in hosts if host.leadership is not None and host.leadership.leading]

    async with process(plane, tmp_path, "operator", "b") as second:
        async with process(plane, tmp_path, "operator", "a") as first:
            (leader,) = await until(lambda: leading(first, second), lambda found: len(found) == 1)
            assert leader.leadership is not None
            lease = kubectl.json("get", "lease", "cilium-operator-resource-lock", "-n", "kube-system")
            assert lease["spec"]["holderIdentity"] == leader.leadership.candidate
        await until(lambda: leading(second), bool)
        kubectl.apply(POLICY)
        await until(lambda: kubectl("get", "cnp", "web").splitlines()[1].split()[-1], "False".__eq__)


def endpoints_of(host: Host) -> tuple[Any, Any]:
    """Writers of the tables of endpoints, in place of cni and policy."""
    identities = host.tables.writer(IDENTITIES, "test")
    identities.put(Identity(id=300, labels=("k8s:app=web",)))
    return host.tables.writer(ENDPOINTS, "test"), host.tables.writer(ENDPOINT_POLICIES, "test")


async def test_endpoints_come_are_mended_and_go(plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl.apply(node("n1"))
    container = {"name": "c", "image": "x"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"}}
    kubectl.apply({**pod, "spec": {"containers": [container], "serviceAccountName": "default"}}, check=False)
    uid = "2b1e1c2e-0000-4000-8000-000000000000"
    async with process(plane, tmp_path, "agent", "n1") as agent:
        endpoints, policies = endpoints_of(agent)
        task = asyncio.create_task(EndpointObjects(agent._context("cni", CniPlugin(), agent.healths["ipam"])).run())
        row = Endpoint(
            id=7, generation=1, container_id="c", interface="eth0", netns="", namespace="default", pod="web",
            pod_uid=uid, ipv4="10.77.0.9", ipv6="fd77::9", labels=("k8s:app=web",),
        )  # fmt: skip
        endpoints.put(row)
        endpoints.complete()
        policies.put(EndpointPolicy(id=7, generation=1, identity=300, ingress_policy=1, egress_policy=1, revision=1))

        def line() -> list[str]:
            return (kubectl("get", "cep", "web", check=False).splitlines() or ["", ""])[-1].split()

        await until(line, ["web", "300", "ready", "10.77.0.9", "fd77::9"].__eq__)
        kubectl("patch", "cep", "web", "--type=merge", "-p", '{"status":{"networking":{"node":"203.0.113.1"}}}')
        mended = await until(
            lambda: kubectl.json("get", "cep", "web"), lambda one: one["status"]["networking"]["node"] != "203.0.113.1"
        )
        assert mended["status"]["external-identifiers"]["pod-name"] == "default/web"
        kubectl("delete", "cep", "web")
        await until(line, ["web", "300", "ready", "10.77.0.9", "fd77::9"].__eq__)
        endpoints.delete(7)
        await until(line, [].__eq__)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_nobody_uses_is_collected(plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> None:
    cilium = {"apiVersion": "cilium.io/v2"}
    named = {"name": "web", "namespace": "default"}
    kubectl.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {**named, "name": "default"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": named, "spec": {"containers": [{"name": "c", "image": "x"}]}},
    )
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "web",
        "uid": kubectl.json("get", "pod", "web")["metadata"]["uid"],
    }
    node = {"apiVersion": "v1", "kind": "Node", "name": "gone", "uid": "u"}
    kubectl.apply(
        {**cilium, "kind": "CiliumNode", "metadata": {"name": "gone", "ownerReferences": [node]}},
        {**cilium, "kind": "CiliumNode", "metadata": {"name": "alone"}},
        {**cilium, "kind": "CiliumEndpoint", "metadata": {**named, "name": "gone"}},
        {
            **cilium, "kind": "CiliumEndpoint", "metadata": {**named, "ownerReferences": [pod]},
            "status": {"identity": {"id": 300}},
        },
        identity_object(300, ("k8s:app=a",)),
        identity_object(301, ("k8s:app=b",)),
    )  # fmt: skip
    async with process(plane, tmp_path, "operator", "o"):
        left = {"ciliumnode.cilium.io/alone", "ciliumendpoint.cilium.io/web", "ciliumidentity.cilium.io/300"}
        await until(lambda: set(kubectl("get", "cn,cep,ciliumid", "-o", "name").split()), left.__eq__)


async def test_identities_of_many_nodes_agree_though_each_sees_the_others_late(
    plane: ControlPlane, kubectl: Kubectl, tmp_path: Path
) -> None:
    async with process(plane, tmp_path, "agent", "n1") as agent:
        nodes = [Allocator(agent.store) for _ in range(10)]
        sets = [("k8s:app=shared",), *((f"k8s:app=n{number}",) for number in range(3))]
        numbers = await asyncio.gather(*(node.allocate(labels) for node in nodes for labels in sets))
        items = (await agent.store.list(CILIUM_IDENTITY)).items
        stored = {int(one["metadata"]["name"]): one["security-labels"]["k8s:app"] for one in items}
        assert all(f"k8s:app={stored[number]}" in labels for number, (labels) in zip(numbers, sets * 10, strict=True))
        for one in nodes:
            for number, value in stored.items():
                one.learn(number, (f"k8s:app={value}",))
        for labels in sets:
            assert len({one.known(labels) for one in nodes}) == 1
        with pytest.raises(ConflictError):
            stale = await agent.store.get(CILIUM_IDENTITY, str(min(stored)))
            await agent.store.patch(CILIUM_IDENTITY, {"metadata": {"name": str(min(stored)), "labels": {"a": "b"}}})
            await agent.store.update(stale)
        assert not (await agent.store.list(NODE)).items
