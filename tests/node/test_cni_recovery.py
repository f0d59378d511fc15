"""The table file and its copy are lost: endpoints are taken up again from the kernel, or waited for, never removed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from ciliate.api.routes import ApiError
from ciliate.config import core_config, load_settings
from ciliate.model.endpoint import ENDPOINTS
from ciliate.places import open_store
from ciliate.tables.file import TableFile, encode_key

from tests.node.cni_node import Node, Pod, require_root, wait_for
from tests.node.cni_policy import IDENTITY


@pytest.fixture
def node() -> Iterator[Node]:
    """All its pods have one identity, of which there is no object; nor are there Pods."""
    require_root()
    node = Node(octet=126)
    try:
        node.start()
        yield node
    finally:
        node.close()


def lose_tables(node: Node) -> None:
    """With the agent, everything that it had written."""
    node.kill()
    for path in (node.folder / "state" / "tables").iterdir():
        path.unlink()


def add_identity(node: Node) -> None:
    """Tell the store what the pods' identity stands for."""
    labels = {"k8s:app": "web", "k8s:io.kubernetes.pod.namespace": "shop"}
    obj = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumIdentity",
        "metadata": {"name": str(IDENTITY)},
        "security-labels": labels,
    }

    async def create() -> None:
        store = open_store(core_config(load_settings(node.config, environment={})))
        try:
            await store.create(obj)
        finally:
            await store.close()

    asyncio.run(create())


def reasons(node: Node) -> str:
    """Why cni is not ready; empty while the agent can't be asked."""
    try:
        found: dict[str, Any] = node.api("/status")["reasons"]
    except ApiError:
        return ""
    return " ".join(found.get("cni", []))


def reach(one: Pod, other: Pod) -> bool:
    """Whether a pod reaches another in both families."""
    return all(" 0% packet loss" in one.run("ping", "-c1", "-W2", address) for address in other.addresses)


def test_pods_that_nobody_knows_keep_their_devices_until_they_are_known_or_deleted(node: Node) -> None:
    one, other, third = node.add(), node.add(), node.add()
    links = set(node.links())
    lose_tables(node)
    node.start(wait=False)
    wait_for("the agent waits", lambda: "nobody knows the labels of endpoints" in reasons(node))
    assert all(f"{pod.addresses[0]}" in reasons(node) for pod in (one, other, third))
    assert set(node.links()) == links
    assert reach(one, other)
    outcome = node.call("ADD", node.pod())
    assert (outcome.status, outcome.json["code"]) == (1, 11), "try again later"
    node.delete(third)
    wait_for("one is deleted", lambda: third.addresses[0] not in reasons(node))
    add_identity(node)
    node.await_ready()
    assert "recovery" not in reasons(node)
    assert set(node.links()) == links - {third.result["interfaces"][0]["name"]}
    assert reach(one, other)
    rows = {row["ipv4"]: row for row in node.endpoints()}
    assert set(rows) == {one.addresses[0], other.addresses[0]}
    for row in rows.values():
        assert (row["namespace"], row["labels"]) == ("shop", ["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"])


def test_a_recovered_endpoint_is_known_by_whatever_call_names_it(node: Node) -> None:
    checked, added, deleted, kept = (node.add() for _ in range(4))
    lose_tables(node)
    add_identity(node)
    node.start()
    assert {row["container_id"].partition(":")[0] for row in node.endpoints()} == {"recovered"}
    outcome = node.call("CHECK", checked, node.conf(prevResult=checked.result))
    assert outcome.status == 0, outcome.output
    again = node.call("ADD", added)
    assert again.json["ips"] == added.result["ips"]
    node.delete(deleted)
    fresh = node.add()
    taken = {address for pod in (checked, added, kept) for address in pod.addresses}
    assert not taken & set(fresh.addresses)
    valid = [{"containerID": pod.container_id, "ifname": "eth0"} for pod in (checked, kept, fresh)]
    conf: dict[str, Any] = {"cni.dev/valid-attachments": valid}
    collected = node.call("GC", fresh, node.conf(**conf))
    assert collected.status == 0, collected.output
    known = {row["container_id"]: {row["ipv4"], row["ipv6"]} for row in node.endpoints()}
    assert known == {pod.container_id: set(pod.addresses) for pod in (checked, kept, fresh)}
    in_use = {a["attachment"] for a in node.api("/tables/addresses")["rows"] if a["attachment"] and not a["released"]}
    assert in_use == {f"{container}/eth0" for container in known}
    assert reach(kept, checked)


def test_one_row_that_is_lost_is_recovered_as_well(node: Node) -> None:
    pods = [node.add(), node.add()]
    node.kill()
    file = TableFile(node.folder / "state" / "tables" / "agent.sqlite")
    lost = min(row.id for row in file.load(ENDPOINTS)[1].values())
    file.write([(ENDPOINTS.name, encode_key(lost), None)])
    file.close()
    add_identity(node)
    node.start()
    assert len(node.endpoints()) == 2
    assert reach(*pods)
