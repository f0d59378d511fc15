"""Endpoints follow their Pod and Namespace objects; what `ciliate-dbg` shows of a node; conntrack is collected."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ciliate.config import core_config, load_settings
from ciliate.kernel import syscall
from ciliate.maps.map import Map
from ciliate.model.base import pack_address
from ciliate.model.conntrack import CONNTRACK_ENTRY, CONNTRACK_KEY, CONNTRACK_MAP
from ciliate.model.kinds import NAMESPACE, POD
from ciliate.places import open_store
from ciliate.store import Kind, Object

from tests.node.cni_node import Node, require_root, wait_for

SHOP = "k8s:io.kubernetes.pod.namespace=shop"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    require_root()
    node = Node(octet=108, settings={"cni": {"conntrack_interval": 0.2}})
    try:
        node.start()
        yield node
    finally:
        node.close()


def write(node: Node, *objects: Object) -> list[Object]:
    """Create objects, or replace those that exist."""

    async def act() -> list[Object]:
        store = open_store(core_config(load_settings(node.config)))
        try:
            done = []
            for obj in objects:
                meta, kind = obj["metadata"], NAMESPACE if obj["kind"] == "Namespace" else POD
                present = {o["metadata"]["name"] for o in (await store.list(kind, meta.get("namespace"))).items}
                done.append(await (store.update if meta["name"] in present else store.create)(obj))
            return done
        finally:
            await store.close()

    return asyncio.run(act())


def remove(node: Node, kind: Kind, name: str, namespace: str) -> None:
    async def act() -> None:
        store = open_store(core_config(load_settings(node.config)))
        try:
            await store.delete(kind, name, namespace)
        finally:
            await store.close()

    asyncio.run(act())


def namespace(labels: dict[str, str]) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}


def pod_object(name: str, labels: dict[str, str], where: str = "node1") -> Object:
    port = {"name": "http", "containerPort": 8080}
    spec = {"nodeName": where, "serviceAccountName": "robot", "containers": [{"name": "c", "ports": [port]}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "spec": spec,
    }


def arguments(name: str, uid: str = "") -> str:
    return f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name};K8S_POD_UID={uid}"


def endpoint(node: Node, name: str) -> dict[str, Any]:
    found: dict[str, Any] = node.api(f"/endpoints/shop:{name}")
    return found


def test_a_pods_labels_and_ports_are_its_endpoints_and_follow_changes(node: Node) -> None:
    _, made = write(node, namespace({"team": "a"}), pod_object("web", {"app": "web"}))
    pod = node.add(args=arguments("web", made["metadata"]["uid"]))
    shown = endpoint(node, "web")
    by_store = "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop"
    assert [label for label in shown["labels"] if label != by_store] == [
        "k8s:app=web",
        "k8s:io.cilium.k8s.namespace.labels.team=a",
        "k8s:io.cilium.k8s.policy.cluster=test",
        "k8s:io.cilium.k8s.policy.serviceaccount=robot",
        SHOP,
    ]
    assert shown["named_ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert shown["pod_uid"] == made["metadata"]["uid"]
    write(node, pod_object("web", {"app": "shop"}), namespace({"team": "b"}))
    wanted = {"k8s:app=shop", "k8s:io.cilium.k8s.namespace.labels.team=b", SHOP}
    wait_for("labels follow", lambda: wanted <= set(endpoint(node, "web")["labels"]))
    node.delete(pod)


def test_a_pod_whose_object_comes_late_begins_without_labels_and_gets_them(node: Node) -> None:
    pod = node.add(args=arguments("late"))
    assert endpoint(node, "late")["labels"] == []
    write(node, pod_object("late", {"app": "late"}))
    wait_for("labels come", lambda: "k8s:app=late" in endpoint(node, "late")["labels"])
    remove(node, POD, "late", "shop")
    assert "k8s:app=late" in endpoint(node, "late")["labels"]
    node.delete(pod)


def test_an_earlier_pod_of_the_same_name_is_not_taken_for_this_one(node: Node) -> None:
    write(node, pod_object("again", {"app": "old"}))
    pod = node.add(args=arguments("again", "another-uid"))
    assert endpoint(node, "again")["labels"] == []
    node.delete(pod)


def test_a_pod_of_another_node_gives_no_labels(node: Node) -> None:
    write(node, pod_object("far", {"app": "far"}, where="node2"))
    pod = node.add(args=arguments("far"))
    assert endpoint(node, "far")["labels"] == []
    node.delete(pod)


def test_labels_changed_while_the_agent_is_down_are_taken_up_at_its_start(node: Node) -> None:
    write(node, pod_object("down", {"app": "before"}))
    pod = node.add(args=arguments("down"))
    node.kill()
    write(node, pod_object("down", {"app": "after"}))
    node.start()
    wait_for("labels follow", lambda: "k8s:app=after" in endpoint(node, "down")["labels"])
    node.delete(pod)


def dbg(node: Node, *words: str) -> str:
    """A command of `ciliate-dbg` about this node."""
    program = Path(sys.executable).parent / "ciliate-dbg"
    environment = {"CILIATE_CONFIG": str(node.config), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([program, *words], env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_commands_show_endpoints_flows_counters_and_events(node: Node) -> None:
    one, two = node.add(), node.add()
    numbers = {e["container_id"]: e["id"] for e in node.endpoints()}
    program = Path(sys.executable).parent / "ciliate-dbg"
    monitor = subprocess.Popen(
        [program, "monitor", "-o", "json", "-n", "1", "--related-to", str(numbers[one.container_id])],
        env={"CILIATE_CONFIG": str(node.config), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    )

    def seen() -> bool:
        one.run("ping", "-c1", "-W1", two.addresses[0])
        return monitor.poll() is not None

    wait_for("the monitor has seen an event", seen)
    assert monitor.stdout is not None
    event = json.loads(monitor.stdout.read())
    monitor.stdout.close()
    assert numbers[one.container_id] in (event["source_endpoint"], event["destination_endpoint"])
    assert two.addresses[0] in dbg(node, "endpoint", "list")
    assert json.loads(dbg(node, "endpoint", "get", two.addresses[1], "-o", "json"))["container_id"] == two.container_id
    flows = json.loads(dbg(node, "bpf", "ct", "list", "-o", "json"))
    assert (one.addresses[0], two.addresses[0]) in {(f["source"], f["destination"]) for f in flows}
    assert "Success" in dbg(node, "bpf", "metrics", "list")
    metrics = node.api("/metrics")
    assert "cilium_endpoint 2.0" in metrics
    assert 'cilium_forward_count_total{direction="EGRESS"}' in metrics
    node.delete(one)
    node.delete(two)


def test_flows_that_are_over_are_collected_and_others_are_not(node: Node) -> None:
    table = Map(CONNTRACK_MAP, syscall.get_pinned(node.bpf / "ciliate" / "maps" / "conntrack"))
    stale, live = np.zeros(2, CONNTRACK_KEY)
    for number, key in enumerate((stale, live)):
        key["a"] = np.frombuffer(pack_address(f"192.0.2.{number + 1}"), np.uint8)
        key["b"] = np.frombuffer(pack_address("192.0.2.9"), np.uint8)
        key["protocol"] = 17
    old, new = np.zeros(2, CONNTRACK_ENTRY)
    old["seen"], new["seen"] = 1, 2**62
    table.update(live, new)
    table.update(stale, old)
    wait_for("the stale entry is gone", lambda: table.lookup(stale) is None)
    assert table.lookup(live) is not None
    table.delete(live)
    table.close()
