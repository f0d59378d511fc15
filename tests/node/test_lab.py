"""The lab's commands, its pods' lives, and that nothing is left of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ciliate_lab import cgroups, namespaces
from ciliate_lab.supervisor import LOOK

from tests.node.labs import Lab, echo, until


def test_a_lab_is_ready_when_up_returns(lab: Lab) -> None:
    status = lab.status()
    assert status["ready"], status["reasons"]
    assert {p["name"] for p in status["processes"]} == {"operator", "relay", "agent", "kubelet", "hubble"}
    assert all(p["pid"] and Path(p["socket"]).is_socket() for p in status["processes"])
    node = status["nodes"][0]
    assert len(node["pod_cidrs"]) == 2
    assert Path(node["cni_conf_dir"], "05-ciliate.conflist").exists()
    assert json.loads(lab.ciliate("lab", "status", "-o", "json").stdout)["nodes"] == status["nodes"]


def test_flows_are_served_on_sockets_and_addresses_that_status_names(lab: Lab) -> None:
    status = lab.status()
    node = status["nodes"][0]
    assert Path(status["relay"]["socket"]).is_socket()
    assert Path(node["hubble"]["socket"]).is_socket()
    assert lab.outside.inside(lambda: _listens(node["hubble"]["address"]))
    assert lab.outside.inside(lambda: _listens(status["relay"]["address"]))
    assert status["relay"]["server"] in lab.ciliate("lab", "status").stdout


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 5):
        return True


def test_a_lab_without_hubble_can_be_had(make_lab: Callable[..., Lab]) -> None:
    bare = make_lab("--set", "plugins=[cni, ipam, policy, lab]")
    assert {p["name"] for p in bare.status()["processes"]} == {"operator", "agent", "kubelet"}
    assert bare.status()["relay"] is None
    assert bare.status()["nodes"][0]["hubble"] is None


def test_run_returns_when_the_pod_is_ready_and_listens(lab: Lab, namespace: str) -> None:
    words = ["lab", "run", "server", "-n", namespace, "-l", "app=server", "--node", "node1", "--service-account", "sa"]
    lab.ciliate(*words, "--port", "http:8080/tcp", "--port", "9000/udp", "--", *echo("8080/tcp", "9000/udp"))
    server = lab.pod("server", namespace)
    assert server.connects("127.0.0.1", 8080)
    client = lab.run("client", "sleep", "inf", namespace=namespace)
    assert client.reaches(server, 8080)
    assert client.reaches(server, 9000, "udp")
    assert all(client.pings(address) for address in server.addresses)


def test_exec_runs_inside_the_pod_and_exits_with_its_status(lab: Lab, namespace: str) -> None:
    pod = lab.run("box", "sleep", "inf", namespace=namespace)
    done = lab.exec("box", "sh", "-c", "hostname; cat /proc/net/if_inet6; exit 7", namespace=namespace)
    assert done.returncode == 7
    assert done.stdout.splitlines()[0] == "box"
    assert "eth0" in done.stdout
    assert f"{pod.ipv4} box" in lab.exec("box", "cat", "/etc/hosts", namespace=namespace).stdout


def test_logs_show_what_the_command_said(lab: Lab, namespace: str) -> None:
    lab.run("talker", "sh", "-c", "echo hello; echo trouble >&2; exec sleep inf", namespace=namespace)
    assert lab.ciliate("lab", "logs", "-n", namespace, "talker").stdout == "hello\ntrouble\n"


def test_rm_leaves_nothing_of_the_pod(lab: Lab, namespace: str) -> None:
    pod = lab.run("gone", "sleep", "inf", namespace=namespace)
    assert namespaces.path(pod.netns).exists()
    lab.ciliate("lab", "rm", "-n", namespace, "gone")
    assert not namespaces.path(pod.netns).exists()
    assert not Path(f"/proc/{pod.pid}").exists()
    assert lab.exec("gone", "true", namespace=namespace).returncode == 1


def test_a_command_that_ends_is_started_again(lab: Lab, namespace: str) -> None:
    pod = lab.run("mortal", "sleep", "inf", namespace=namespace)
    os.kill(pod.pid, signal.SIGKILL)
    until(lambda: lab.pod("mortal", namespace).pid not in (0, pod.pid), what="a second start")
    assert lab.pod("mortal", namespace).ipv4 == pod.ipv4


def test_a_pod_that_fails_is_named_with_what_it_said(lab: Lab, namespace: str) -> None:
    words = ["lab", "run", "bad", "-n", namespace, "--timeout", "6", "--", "sh", "-c", "echo no such luck; exit 3"]
    done = lab.ciliate(*words, check=False)
    assert done.returncode == 1
    assert "exit status 3" in done.stderr
    assert "no such luck" in done.stderr


def test_a_port_that_nothing_listens_on_keeps_the_pod_from_being_ready(lab: Lab, namespace: str) -> None:
    words = ["lab", "run", "deaf", "-n", namespace, "--timeout", "4", "--port", "8080/tcp", "--", "sleep", "inf"]
    done = lab.ciliate(*words, check=False)
    assert done.returncode == 1
    assert "8080/TCP" in done.stderr


def test_an_applied_pod_runs_its_command_with_args_and_environment(lab: Lab, namespace: str) -> None:
    container = {
        "name": "main",
        "command": ["sh", "-c"],
        "args": ["echo $(GREETING) at $WHERE; exec sleep inf"],
        "env": [
            {"name": "GREETING", "value": "hi"},
            {"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
    }
    meta = {"name": "manifest", "namespace": namespace}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}}
    lab.apply(pod)
    until(lambda: lab.pod("manifest", namespace).pid, what="the pod's start")
    said = f"hi at {lab.pod('manifest', namespace).ipv4}\n"
    until(lambda: lab.ciliate("lab", "logs", "-n", namespace, "manifest").stdout == said, what="what it says")


def test_pods_outlive_the_kubelet_and_the_next_one_takes_over(lab: Lab, namespace: str) -> None:
    pod = lab.run("survivor", "sleep", "inf", namespace=namespace)
    old = lab.signal("kubelet", signal.SIGKILL)
    until(lambda: (now := lab.process("kubelet"))["ready"] and now["pid"] != old, 30, "the next kubelet")
    assert lab.pod("survivor", namespace) == pod
    lab.remove("survivor", namespace=namespace)
    assert not namespaces.path(pod.netns).exists()


def test_a_pod_deleted_while_the_kubelet_is_down_is_removed_by_the_next(lab: Lab, namespace: str) -> None:
    pod = lab.run("doomed", "sleep", "inf", namespace=namespace)
    lab.signal("kubelet", signal.SIGSTOP)
    try:
        words = ["lab", "rm", "-n", namespace, "doomed", "--timeout", "0.5"]
        assert "not gone" in lab.ciliate(*words, check=False).stderr
        assert namespaces.path(pod.netns).exists()
    finally:
        lab.signal("kubelet", signal.SIGKILL)
    until(lambda: not namespaces.path(pod.netns).exists(), what="the pod's end")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "x", "--port", "http:70000/tcp", "--", "true"], "1 to 65535"),
        (["run", "x", "--port", "80/quic", "--", "true"], "tcp, udp or sctp"),
        (["run", "x", "-l", "novalue", "--", "true"], "KEY=VALUE"),
        (["run", "x", "--node", "node9", "--", "true"], "no such node"),
        (["up"], "already"),
        (["up", "--name", "Not_A_Name"], "lab name"),
        (["up", "--name", "absent", "--set", "plugins=[cni, nobody]"], "nobody: not installed"),
        (["exec", "nobody", "--", "true"], "nobody"),
        (["status", "--name", "no-such-lab"], "lab up"),
        (["rm", "nobody"], "nobody"),
        (["logs"], "name a pod"),
    ],
)
def test_a_mistake_is_refused_with_what_to_do(lab: Lab, words: list[str], said: str) -> None:
    done = lab.ciliate("lab", *words, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_same_pod_twice_is_refused(lab: Lab, namespace: str) -> None:
    lab.run("once", "sleep", "inf", namespace=namespace)
    done = lab.ciliate("lab", "run", "once", "-n", namespace, "--", "true", check=False)
    assert done.returncode == 1
    assert "already" in done.stderr


def test_a_bad_setting_stops_up_before_anything_is_made() -> None:
    lab = Lab(f"bad-{os.getpid()}")
    done = lab.ciliate("lab", "up", "--set", "nonsense", check=False)
    assert done.returncode == 1
    assert "section.key=value" in done.stderr
    assert lab.left() == []


def test_two_labs_at_once_do_not_touch_each_other(lab: Lab, make_lab: Callable[..., Lab], namespace: str) -> None:
    here = lab.run("twin", "sleep", "inf", namespace=namespace)
    other = make_lab("--nodes", "2")
    there = [other.run(f"twin{n}", "sleep", "inf", node=f"node{n}") for n in (1, 2)]
    assert {pod.node for pod in there} == {"node1", "node2"}
    assert len({pod.ipv4 for pod in there}) == 2
    other.down()
    assert other.left() == []
    assert lab.pod("twin", namespace) == here
    assert here.pings(here.ipv4)


def test_a_lab_that_crashed_half_way_is_taken_down_whole() -> None:
    lab = Lab(f"crash-{os.getpid()}")
    words = [str(Path(sys.executable).parent / "ciliate"), "lab", "up", "--name", lab.name]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: lab.place.running.exists() or process.poll() is not None, what="a lab half-way up")
    process.kill()
    process.wait()
    left = lab.left()
    lab.down()
    assert left
    assert lab.left() == []


def test_a_lab_whose_processes_were_all_killed_is_taken_down_whole(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.run("pod", "sleep", "inf")
    for pid in cgroups.pids(lab.place.cgroup):
        os.kill(pid, signal.SIGKILL)
    assert lab.ciliate("lab", "status", check=False).returncode == 1
    lab.down()
    assert lab.left() == []


def test_a_killed_supervisor_is_started_anew_and_takes_over_what_runs(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    before = {p["name"]: p["pid"] for p in lab.status()["processes"]}
    lab.signal("supervisor", signal.SIGKILL)
    until(lambda: any("lab up" in reason for reason in lab.status()["reasons"]), what="status says how to mend it")
    os.kill(before.pop("operator"), signal.SIGKILL)
    lab.up()
    after = {p["name"]: p["pid"] for p in lab.status()["processes"]}
    assert after.pop("operator")
    assert after == before, "what still ran was taken over"
    supervisor = lab.signal("supervisor", signal.SIGSTOP)
    time.sleep(3 * LOOK)  # stopped for longer than it waits between two looks: its wait then ends without a signal
    os.kill(supervisor, signal.SIGCONT)
    os.kill(after["kubelet"], signal.SIGKILL)
    until(lambda: lab.process("kubelet")["pid"] not in (0, after["kubelet"]), what="the next kubelet")
