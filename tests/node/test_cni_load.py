"""Many calls at once, and one attachment from many sides."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.node.cni_node import Node, Pod, require_root, wait_for

MANY = 500


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    require_root()
    node = Node(octet=103)
    try:
        node.start()
        yield node
    finally:
        node.close()


def test_the_same_container_added_at_once_is_one_endpoint(node: Node) -> None:
    pod = node.pod()
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda _: node.call("ADD", pod), range(16)))
    assert {o.status for o in outcomes} == {0}, outcomes
    assert len({o.output for o in outcomes}) == 1
    assert len([e for e in node.endpoints() if e["container_id"] == pod.container_id]) == 1
    node.delete(pod)


def test_adds_and_deletes_of_one_container_leave_it_as_the_last_call_said(node: Node) -> None:
    pod = node.pod()
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda n: node.call("DEL" if n % 2 else "ADD", pod), range(40)))
    assert {o.status for o in outcomes} == {0}, [o.output for o in outcomes if o.status]
    node.add(pod)
    assert " 0% packet loss" in node.host("ping", "-c1", "-W2", pod.addresses[0])
    node.delete(pod)
    wait_for("every pair is gone", lambda: not node.links())
    assert node.endpoints() == []


def test_five_hundred_adds_and_deletes_at_once(node: Node) -> None:
    pods = [node.pod() for _ in range(MANY)]
    with ThreadPoolExecutor(MANY) as pool:
        added: list[Pod] = list(pool.map(node.add, pods))
        assert len({a for pod in added for a in pod.addresses}) == 2 * MANY
        assert len(node.endpoints()) == MANY
        assert len(node.links()) == MANY
        first, last = added[0], added[-1]
        assert " 0% packet loss" in first.run("ping", "-c1", "-W2", last.addresses[1])
        list(pool.map(node.delete, added))
    assert node.endpoints() == []
    wait_for("every pair is gone", lambda: not node.links())
