"""The verbs of CNI through the real shim, against a real agent, with real namespaces."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ciliate_cni.netconf import VERSIONS

from tests.node.cni_node import Node, Pod, require_root, wait_for
from tests.unit.cni import shim


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    require_root()
    node = Node(octet=102)
    try:
        node.start()
        yield node
    finally:
        node.close()


def error_of(outcome: shim.Outcome) -> dict[str, object]:
    """A refusal, which must have CNI's shape."""
    assert outcome.status == 1
    error = outcome.json
    assert {"cniVersion", "code", "msg"} <= set(error)
    assert error["msg"]
    return dict(error)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_container_is_added_checked_and_deleted(node: Node, version: str) -> None:
    pod = node.add(version=version)
    assert pod.result["cniVersion"] == version
    assert ["version" in ip for ip in pod.result["ips"]] == [version.startswith("0.")] * 2
    other = node.add()
    for address in other.addresses:
        assert " 0% packet loss" in pod.run("ping", "-c1", "-W2", address)
        assert " 0% packet loss" in node.host("ping", "-c1", "-W2", address)
    if version != "0.3.1":
        outcome = node.call("CHECK", pod, node.conf(version, prevResult=pod.result))
        assert (outcome.status, outcome.output) == (0, b"")
    for _ in range(2):
        outcome = node.call("DEL", pod, node.conf(version, prevResult=pod.result))
        assert (outcome.status, outcome.output) == (0, b"")
    assert pod.container_id not in {e["container_id"] for e in node.endpoints()}
    wait_for("the pair is gone", lambda: pod.result["interfaces"][0]["name"] not in node.links())
    node.delete(other)


def test_a_pod_reaches_the_host_and_is_reached_by_it(node: Node) -> None:
    pod = node.add()
    for family, address in ((4, "10.102.0.1"), (6, "fd00:66::1")):
        assert " 0% packet loss" in pod.run("ping", f"-{family}", "-c1", "-W2", address)
    node.delete(pod)


def test_adding_twice_gives_the_same_result(node: Node) -> None:
    pod = node.add()
    first = pod.result
    assert node.add(pod).result == first
    assert len([e for e in node.endpoints() if e["container_id"] == pod.container_id]) == 1
    node.delete(pod)


def test_adding_again_makes_anew_what_was_damaged(node: Node) -> None:
    pod = node.add()
    damaged = pod.result
    pod.run("ip", "link", "del", "eth0")
    again = node.add(pod).result
    assert again["interfaces"] != damaged["interfaces"]
    assert " 0% packet loss" in node.host("ping", "-c1", "-W2", pod.addresses[0])
    node.delete(pod)


def test_two_interfaces_of_one_container_are_two_attachments(node: Node) -> None:
    pod = node.add()
    second = node.call("ADD", pod, ifname="net1")
    assert second.json["code"] == 102  # a second default route in one container is not for us to choose
    assert "default route" in second.json["msg"]
    assert len([e for e in node.endpoints() if e["container_id"] == pod.container_id]) == 1
    node.delete(pod)


def test_deleting_the_unknown_succeeds_without_a_namespace(node: Node) -> None:
    outcome = shim.call("DEL", node.conf(), containerid="never-seen", ifname="eth0", netns="")
    assert (outcome.status, outcome.output) == (0, b"")


def test_deleting_after_the_namespace_is_gone_succeeds(node: Node) -> None:
    pod = node.add()
    os.system(f"ip netns del {pod.name}")
    node.pods.remove(pod)
    node.delete(pod)
    assert pod.container_id not in {e["container_id"] for e in node.endpoints()}


@pytest.mark.parametrize(
    ("path", "word"),
    [("/run/netns/gone", "No such file"), ("/etc/hostname", "not a network namespace"), ("", "empty")],
)
def test_a_namespace_that_is_none_is_refused(node: Node, path: str, word: str) -> None:
    error = error_of(shim.call("ADD", node.conf(), containerid="c", ifname="eth0", netns=path))
    assert word in f"{error['msg']}"


def test_another_kind_of_namespace_is_refused(node: Node) -> None:
    error = error_of(shim.call("ADD", node.conf(), containerid="c", ifname="eth0", netns="/proc/self/ns/mnt"))
    assert "not a network namespace" in f"{error['msg']}"


def test_the_hosts_own_namespace_is_refused(node: Node) -> None:
    error = error_of(shim.call("ADD", node.conf(), containerid="c", ifname="eth0", netns=f"/run/netns/{node.name}"))
    assert "host's own" in f"{error['msg']}"


def test_a_fifo_for_a_namespace_does_not_hang(node: Node) -> None:
    path = node.folder / "fifo"
    os.mkfifo(path)
    error_of(shim.call("ADD", node.conf(), containerid="c", ifname="eth0", netns=str(path)))


def test_an_interface_that_is_taken_is_named_and_nothing_is_left(node: Node) -> None:
    pod = node.pod()
    pod.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other0")
    before = node.links()
    error = error_of(node.call("ADD", pod))
    assert "eth0 already" in f"{error['msg']}"
    assert not set(node.links()) - set(before)  # pairs of earlier pods may still be on their way out
    assert pod.container_id not in {e["container_id"] for e in node.endpoints()}


def test_check_names_what_is_wrong(node: Node) -> None:
    pod = node.add()
    config = node.conf(prevResult=pod.result)
    pod.run("ip", "addr", "del", f"{pod.addresses[0]}/32", "dev", "eth0")
    error = error_of(node.call("CHECK", pod, config))
    assert pod.addresses[0] in f"{error['details']}"
    pod.run("ip", "link", "set", "eth0", "down")
    assert "down" in f"{error_of(node.call('CHECK', pod, config))['details']}"
    assert error_of(node.call("CHECK", Pod("none", "unknown"), config))["code"] in (3, 100)
    node.delete(pod)


def test_gc_deletes_what_the_runtime_does_not_have(node: Node) -> None:
    kept, lost = node.add(), node.add()
    others = [e for e in node.endpoints() if e["container_id"] not in (kept.container_id, lost.container_id)]
    valid = [{"containerID": e["container_id"], "ifname": e["interface"]} for e in others]
    valid.append({"containerID": kept.container_id, "ifname": "eth0"})
    elsewhere: dict[str, Any] = {"name": "another", "cni.dev/valid-attachments": []}
    assert shim.call("GC", node.conf(**elsewhere)).status == 0
    assert lost.container_id in {e["container_id"] for e in node.endpoints()}
    assert error_of(shim.call("GC", node.conf()))["code"] == 7
    here: dict[str, Any] = {"cni.dev/valid-attachments": valid}
    assert shim.call("GC", node.conf(**here)).status == 0
    left = {e["container_id"] for e in node.endpoints()}
    assert kept.container_id in left
    assert lost.container_id not in left
    node.delete(kept)


def test_status_says_that_the_node_is_ready(node: Node) -> None:
    outcome = shim.call("STATUS", node.conf())
    assert (outcome.status, outcome.output) == (0, b"")


def test_a_chained_configuration_keeps_what_came_before(node: Node) -> None:
    pod = node.pod()
    pod.run("ip", "link", "add", "extra0", "type", "veth", "peer", "name", "other0")
    previous = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "extra0", "sandbox": pod.netns}],
        "ips": [{"address": "192.0.2.9/24", "interface": 0}],
    }
    outcome = node.call("ADD", pod, node.conf("1.0.0", prevResult=previous))
    assert outcome.status == 0, outcome.output
    assert outcome.json["interfaces"][0] == previous["interfaces"][0]
    assert outcome.json["ips"][0] == previous["ips"][0]
    assert outcome.json["ips"][1]["interface"] == 2
    checked = node.call("CHECK", pod, node.conf("1.0.0", prevResult=outcome.json))
    assert checked.status == 0, checked.output
    node.delete(pod)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (b"", 6),
        (b"{", 6),
        (b"null", 6),
        (b'{"cniVersion":"1.1.0","name":"n","socket":"%s","x":"\xff"}', 6),
        (b'{"socket":"%s","cniVersion":"1.1.0","name":"n"', 6),
        (b'{"socket":"%s","cniVersion":"9.9.9","name":"n"}', 1),
        (b'{"socket":"%s","cniVersion":"1.1.0"}', 7),
        (b'{"socket":"%s","cniVersion":"1.1.0","name":"n","prevResult":{"ips":[{"address":"x"}]}}', 7),
        (b'{"socket":"%s","cniVersion":"1.1.0","name":"n","pad":"' + b"y" * (1 << 20) + b'"}', 6),
    ],
)
def test_a_bad_configuration_is_refused_with_its_code(node: Node, config: bytes, code: int) -> None:
    pod = node.pod()
    filled = config.replace(b"%s", str(node.socket).encode())
    extra = {"CILIATE_CNI_SOCKET": str(node.socket)}
    outcome = shim.call("ADD", filled, extra, containerid=pod.container_id, ifname="eth0", netns=pod.netns)
    assert error_of(outcome)["code"] == code
    assert json.loads(pod.run("ip", "-j", "link", "show", "lo"))


def test_a_caller_that_has_gone_gets_no_endpoint(node: Node) -> None:
    from ciliate_cni import wire

    pod = node.pod()
    request = wire.Request(b"ADD", pod.container_id.encode(), pod.netns.encode(), b"eth0", b"", b"", 0, node.conf())
    with socket.socket(socket.AF_UNIX) as client, Path(pod.netns).open() as netns:
        client.connect(str(node.socket))
        socket.send_fds(client, [wire.encode_request(request)], [netns.fileno()])
    calls = 'ciliate_cni_calls_total{outcome="try_again",verb="ADD"}'
    wait_for("the call is over", lambda: calls in node.api("/metrics") or pod.container_id in str(node.endpoints()))
    assert pod.container_id not in {e["container_id"] for e in node.endpoints()}
    wait_for("its devices are removed", lambda: "eth0" not in pod.run("ip", "link"))


def test_an_endpoint_that_gets_no_policy_is_undone() -> None:
    require_root()
    node = Node(octet=112, policy="none", settings={"cni": {"policy_timeout": 0.2}})
    try:
        node.start()
        assert error_of(shim.call("STATUS", node.conf()))["code"] == 50
        pod = node.pod()
        error = error_of(node.call("ADD", pod))
        assert error["code"] == 11
        assert "policy" in f"{error['msg']}"
        assert node.endpoints() == []
        wait_for("the pair is gone", lambda: not node.links() and "eth0" not in pod.run("ip", "link"))
        assert [a for a in node.api("/tables/addresses")["rows"] if a["attachment"] and not a["released"]] == []
    finally:
        node.close()


def test_endpoints_are_judged_by_the_plugin_policy() -> None:
    """Containers that no Kubernetes names are reserved:init, which only the host may reach."""
    require_root()
    node = Node(octet=113, policy="real")
    try:
        node.start()
        one, two = node.add(), node.add()
        assert {e["identity"] for e in node.endpoints()} == {5}
        assert " 0% packet loss" in node.host("ping", "-c1", "-W2", one.addresses[1])
        assert " 100% packet loss" in one.run("ping", "-c1", "-W1", two.addresses[0], check=False)
        reasons = {m["reason"] for m in node.api("/bpf/metrics")}
        assert "Policy denied" in reasons
    finally:
        node.close()
