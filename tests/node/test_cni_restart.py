"""The agent down, killed and back: pods go on, deletions are not lost, half-made endpoints vanish."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.node.cni_node import Node, require_root, run, wait_for
from tests.unit.cni import shim


@pytest.fixture
def node() -> Iterator[Node]:
    require_root()
    node = Node(octet=104)
    try:
        node.start()
        yield node
    finally:
        node.close()


def test_endpoints_are_adopted_and_no_packet_is_lost(node: Node) -> None:
    pods = [node.add() for _ in range(3)]
    before, indexes = node.endpoints(), {name: link["ifindex"] for name, link in node.links().items()}
    pinger = subprocess.Popen(
        ["ip", "netns", "exec", pods[0].name, "ping", "-i", "0.01", "-w", "60", pods[1].addresses[0]],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        node.kill()
        node.start()
        assert node.endpoints() == before
        assert {name: link["ifindex"] for name, link in node.links().items()} == indexes
    finally:
        pinger.send_signal(signal.SIGINT)
        output = pinger.communicate()[0]
    assert " 0% packet loss" in output
    assert "programs=kept" in node.log.read_text()
    for pod in pods:
        checked = node.call("CHECK", pod, node.conf(prevResult=pod.result))
        assert checked.status == 0, checked.output
    fresh = node.add()
    assert {e["generation"] for e in node.endpoints()} > {e["generation"] for e in before}
    assert not set(fresh.addresses) & {a for pod in pods for a in pod.addresses}


def test_what_is_damaged_while_the_agent_is_down_is_repaired_or_forgotten(node: Node) -> None:
    kept, bare, gone = node.add(), node.add(), node.add()
    node.kill()
    name = bare.result["interfaces"][0]["name"]
    node.host("tc", "qdisc", "del", "dev", name, "clsact")
    node.host("ip", "link", "set", kept.result["interfaces"][0]["name"], "down")
    run("ip", "netns", "del", gone.name)
    node.pods.remove(gone)
    wait_for("the pair is gone", lambda: gone.result["interfaces"][0]["name"] not in node.links())
    node.start()
    assert {e["container_id"] for e in node.endpoints()} == {kept.container_id, bare.container_id}
    assert "from_pod" in node.host("tc", "filter", "show", "dev", name, "ingress")
    for pod in (kept, bare):
        assert " 0% packet loss" in node.host("ping", "-c1", "-W2", pod.addresses[0])
    in_use = {a["attachment"] for a in node.api("/tables/addresses")["rows"] if not a["released"]}
    assert f"{gone.container_id}/eth0" not in in_use


def test_an_orphan_pair_is_removed_at_the_start(node: Node) -> None:
    pod = node.add()
    node.kill()
    orphan = "lxc0123456789ab"
    node.host("ip", "link", "add", orphan, "group", str(0xC1A7E1), "type", "veth", "peer", "name", "lonely")
    node.start()
    assert set(node.links()) == {pod.result["interfaces"][0]["name"]}


def test_without_an_agent_adds_fail_at_once_and_deletes_are_done_at_the_start(node: Node) -> None:
    pod, other = node.add(), node.add()
    node.kill()
    outcome = node.call("ADD", node.pod())
    assert (outcome.status, outcome.json["code"]) == (1, 11)
    assert shim.call("STATUS", node.conf()).json["code"] == 50
    node.delete(pod)
    node.delete(pod)
    assert " 0% packet loss" in other.run("ping", "-c1", "-W2", "10.104.0.1")
    node.start()
    assert [e["container_id"] for e in node.endpoints()] == [other.container_id]
    assert list((node.run_dir / "delete-queue").iterdir()) == []


def test_an_add_after_a_queued_delete_of_the_same_container_is_not_deleted(node: Node) -> None:
    pod = node.add()
    node.kill()
    node.delete(pod)
    node.start()
    node.add(pod)
    assert " 0% packet loss" in node.host("ping", "-c1", "-W2", pod.addresses[0])


def test_an_agent_that_stops_takes_its_socket_along(node: Node) -> None:
    pod = node.add()
    node.kill(signal.SIGTERM)
    assert not node.socket.exists()
    assert " 0% packet loss" in node.host("ping", "-c1", "-W2", pod.addresses[0])


def test_an_agent_killed_in_mid_add_leaves_nothing_half_made(node: Node) -> None:
    for _ in range(5):
        pods = [node.pod() for _ in range(20)]
        with ThreadPoolExecutor(len(pods)) as pool:
            calls = [pool.submit(node.call, "ADD", pod) for pod in pods]
            wait_for("the first pairs are there", lambda: len(node.links()) > 2)
            node.kill()
        outcomes = {pod.container_id: call.result() for pod, call in zip(pods, calls, strict=True)}
        for outcome in outcomes.values():
            assert outcome.status == 0 or outcome.json["code"] == 11
        node.start()
        endpoints = {e["container_id"]: e for e in node.endpoints()}
        assert {e["host_interface"] for e in endpoints.values()} == set(node.links())
        for pod in pods:
            if pod.container_id in endpoints:
                assert " 0% packet loss" in node.host("ping", "-c1", "-W2", endpoints[pod.container_id]["ipv4"])
            elif outcomes[pod.container_id].status == 0:
                raise AssertionError(f"{pod.container_id} was added, and is lost")
        for pod in pods:
            node.delete(pod)
        in_use = [a for a in node.api("/tables/addresses")["rows"] if a["attachment"] and not a["released"]]
        assert in_use == []
        wait_for("every pair is gone", lambda: not node.links())


def test_the_configuration_list_and_the_shim_are_installed_for_the_runtime(node: Node) -> None:
    conflist = json.loads(node.conflist.read_text())
    assert conflist["plugins"] == [{"type": "ciliate-cni", "socket": str(node.socket)}]
    assert node.conflist.stat().st_mode & 0o777 == 0o644
    binary = node.folder / "bin" / "ciliate-cni"
    assert binary.stat().st_mode & 0o777 == 0o755
    assert (
        b"supportedVersions"
        in subprocess.run([binary], input=b"{}", env={"CNI_COMMAND": "VERSION"}, capture_output=True, check=True).stdout
    )


def test_uninstalling_leaves_nothing_and_gives_other_configurations_back(node: Node) -> None:
    pod = node.add()
    other = node.folder / "net.d" / "10-other.conf.ciliate_bak"
    other.write_text("{}")
    node.kill(signal.SIGTERM)
    node.host(shim.ROOM.parents[1] / ".venv" / "bin" / "python", "-m", "ciliate_cni.uninstall", "--config", node.config)
    assert [p.name for p in (node.folder / "net.d").iterdir()] == ["10-other.conf"]
    assert list((node.folder / "bin").iterdir()) == []
    assert "ciliate" not in node.host("ip", "link")
    assert node.links() == {}
    assert "eth0" not in pod.run("ip", "link")
    assert not (node.bpf / "ciliate" / "programs").exists()


def test_the_nodes_device_is_made_anew_when_somebody_deletes_it(node: Node) -> None:
    one, two = node.add(), node.add()
    node.host("ip", "link", "del", "ciliate_host")

    def reached() -> bool:
        pinged = node.host("ping", "-c1", "-W1", one.addresses[1], check=False)
        return " 0% packet loss" in pinged and " 0% packet loss" in one.run(
            "ping", "-c1", "-W1", "10.104.0.1", check=False
        )

    wait_for("host and pod reach each other again", reached)
    assert " 0% packet loss" in one.run("ping", "-c1", "-W2", two.addresses[0])
    wait_for("the node is ready", lambda: node.api("/status")["ready"])
    node.add()


def test_a_full_disk_refuses_pods_and_loses_nothing() -> None:
    require_root()
    node = Node(octet=114)
    state = node.folder / "state"
    state.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", state)
    try:
        node.start()
        kept = node.add()
        filler = state / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        pod = node.pod()
        outcome = node.call("ADD", pod)
        assert outcome.json["code"] == 11
        assert "written" in outcome.json["msg"] or "full" in outcome.json["msg"], outcome.json
        assert [e["container_id"] for e in node.endpoints()] == [kept.container_id]
        assert " 0% packet loss" in node.host("ping", "-c1", "-W2", kept.addresses[0])
        filler.unlink()
        node.add(pod)
        node.delete(pod)
        in_use = [a for a in node.api("/tables/addresses")["rows"] if a["attachment"] and not a["released"]]
        assert {a["attachment"] for a in in_use} == {f"{kept.container_id}/eth0"}
    finally:
        node.kill()
        run("umount", state, check=False)
        node.close()
