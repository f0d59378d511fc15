"""Pods' programs move from clsact to tcx and back in the background: no packet is lost, none is judged twice."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from ciliate.kernel import syscall
from ciliate.kernel.probe import Feature, probe

from tests.node.accounting import account
from tests.node.cni_node import Node, Pod, require_root, wait_for
from tests.node.traffic import Traffic

RATE = 1000


@pytest.fixture
def make_node() -> Iterator[Callable[..., Node]]:
    require_root()
    if not probe(Feature.TCX).available:
        pytest.skip("this kernel has no tcx: pods stay on clsact")
    with contextlib.ExitStack() as made:

        def make(octet: int, **cni: object) -> Node:
            node = Node(octet=octet, settings={"cni": cni})
            made.callback(node.close)
            node.start()
            return node

        yield make


def attached(node: Node) -> set[str]:
    return {endpoint["attached"] for endpoint in node.endpoints()}


def pins(node: Node) -> set[str]:
    return {pin.name for pin in (node.bpf / "ciliate" / "links").iterdir()} - {"ciliate_net"}


def program_ids(node: Node) -> set[int]:
    """Of the programs that the pinned links run."""
    return {
        syscall.link_info(syscall.get_pinned(node.bpf / "ciliate" / "links" / pin)).program_id for pin in pins(node)
    }


@contextlib.contextmanager
def lossless(node: Node, folder: Path, client: Pod, server: Pod) -> Iterator[None]:
    """UDP of both families meanwhile: all of it arrives once, and conntrack has counted each packet once."""
    folder.mkdir()
    with Traffic(folder) as traffic:
        for family, address in zip((4, 6), server.addresses, strict=True):
            traffic.serve([Path(server.netns)], family)
            traffic.send(Path(client.netns), address, rate=RATE)
        yield
        records = traffic.stop()
    accounts = account(records.sent, records.received)
    assert len(accounts) == 2
    assert all(flow.sent > 100 and not (flow.lost or flow.duplicated or flow.failed) for flow in accounts), accounts
    flows = [flow for flow in node.api("/bpf/ct") if flow["protocol"] == "UDP"]
    assert sorted(sum(flow["packets"]) for flow in flows) == sorted(flow.sent for flow in accounts), flows


def test_pods_move_under_traffic_and_nothing_is_lost_or_judged_twice(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    node = make_node(120, tcx_delay=4)
    one, two = node.add(), node.add()
    with lossless(node, tmp_path / "there", one, two):
        assert attached(node) == {"clsact"}
        wait_for("both have moved", lambda: attached(node) == {"tcx"})
    assert pins(node) == {str(endpoint["id"]) for endpoint in node.endpoints()}
    checked = node.call("CHECK", one, node.conf(prevResult=one.result))
    assert checked.status == 0, checked.output


def test_links_outlive_the_agent_and_get_the_new_programs_in_place(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    node = make_node(121, tcx_delay=0)
    one, two = node.add(), node.add()
    wait_for("both have moved", lambda: attached(node) == {"tcx"})
    (before,) = program_ids(node)
    node.kill()
    node.start()
    assert (attached(node), program_ids(node)) == ({"tcx"}, {before})
    node.kill()
    for pin in (node.bpf / "ciliate" / "programs").iterdir():
        pin.unlink()
    with lossless(node, tmp_path / "replaced", one, two):
        node.start()
        assert attached(node) == {"tcx"}
    assert program_ids(node) & {before} == set()
    assert len(program_ids(node)) == 1


def test_switched_off_pods_move_back(make_node: Callable[..., Node], tmp_path: Path) -> None:
    node = make_node(122, tcx_delay=0)
    one, two = node.add(), node.add()
    wait_for("both have moved", lambda: attached(node) == {"tcx"})
    node.kill(signal.SIGTERM)
    tree = yaml.safe_load(node.config.read_text())
    tree["cni"]["tcx"] = "off"
    node.config.write_text(yaml.safe_dump(tree))
    with lossless(node, tmp_path / "back", one, two):
        node.start()
        wait_for("both are back", lambda: attached(node) == {"clsact"})
    assert pins(node) == set()


def test_deleted_pods_leave_no_link_and_their_ids_serve_again(make_node: Callable[..., Node]) -> None:
    node = make_node(123, tcx_delay=0)
    pods = [node.add() for _ in range(4)]
    wait_for("all have moved", lambda: attached(node) == {"tcx"})
    for pod in pods[1:]:
        node.delete(pod)
    wait_for("their pairs are gone", lambda: len(node.links()) == 1)
    wait_for("their pins are gone", lambda: len(pins(node)) == 1)
    other = node.add()
    wait_for("the new one has moved", lambda: attached(node) == {"tcx"})
    assert " 0% packet loss" in pods[0].run("ping", "-c1", "-W2", other.addresses[0])


def test_a_pod_whose_pin_is_lost_is_judged_by_its_filter(make_node: Callable[..., Node]) -> None:
    node = make_node(124, tcx_delay=0)
    one, two = node.add(), node.add()
    wait_for("both have moved", lambda: attached(node) == {"tcx"})
    for pin in pins(node):
        (node.bpf / "ciliate" / "links" / pin).unlink()
    assert " 0% packet loss" in one.run("ping", "-c1", "-W2", two.addresses[0])
    node.kill()
    node.start()
    wait_for("both have moved again", lambda: attached(node) == {"tcx"})


def test_nothing_is_moved_while_calls_follow_each_other(make_node: Callable[..., Node]) -> None:
    node = make_node(125, tcx_delay=60)
    node.add()
    node.delete(node.add())
    assert attached(node) == {"clsact"}
    assert pins(node) == set()
