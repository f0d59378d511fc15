"""What a Pod object means to the lab."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ciliate_lab.node.cni import CniError, load_network
from ciliate_lab.node.container import ContainerError, Port, container_of
from ciliate_lab.node.record import PodRecord, PodRecords, alive, start_time
from ciliate_lab.node.status import ContainerState, pod_status
from ciliate_lab.place import LabError, LabPlace
from ciliate_lab.pods import parse_port, pod_object


def pod(**container: Any) -> dict[str, Any]:
    """A Pod with one container."""
    meta = {"name": "web", "namespace": "shop", "uid": "u1"}
    return {"metadata": meta, "spec": {"nodeName": "node1", "containers": [{"name": "c", **container}]}}


def record(**changes: Any) -> PodRecord:
    """A record that has been connected."""
    result = {"ips": [{"address": "10.0.0.5/32"}, {"address": "fd00::5/128"}]}
    values = {"uid": "u1", "namespace": "shop", "name": "web", "container_id": "c1", "netns": "n", "cgroup": "/g"}
    return PodRecord(**{**values, "log": "/l", "result": result, **changes})


def test_args_follow_the_command_and_references_are_expanded() -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"}]
    found = container_of(pod(command=["run", "$(B)"], args=["$$(A)", "$(UNKNOWN)"], env=env), [])
    assert found.command == ["run", "12", "$(A)", "$(UNKNOWN)"]
    assert found.environment["B"] == "12"


def test_fields_of_the_pod_are_known_to_its_environment() -> None:
    env = [
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}},
        {"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ]
    found = container_of(pod(command=["x"], env=env), ["10.0.0.5", "fd00::5"]).environment
    assert (found["IP"], found["IPS"], found["WHERE"]) == ("10.0.0.5", "10.0.0.5,fd00::5", "node1")


def test_ports_are_tcp_unless_they_say_otherwise() -> None:
    ports = [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]
    assert container_of(pod(command=["x"], ports=ports), []).ports == [Port(80, "TCP"), Port(53, "UDP")]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"metadata": {"name": "x"}, "spec": {}}, "spec.containers is empty"),
        (pod(args=["x"]), "command is missing"),
        (pod(command=["x"], env=[{"name": "A", "valueFrom": {"secretKeyRef": {}}}]), "env A: valueFrom must be"),
        (pod(command=["x"], ports=[{"containerPort": "many"}]), "malformed"),
        (pod(command=["x"], env=[{"value": "nameless"}]), "malformed"),
    ],
)
def test_what_cannot_be_run_is_said(broken: dict[str, Any], said: str) -> None:
    with pytest.raises(ContainerError, match=said):
        container_of(broken, [])


def test_a_running_pod_is_ready_only_when_its_ports_listen() -> None:
    waiting = pod_status(record(), ContainerState("c", running=True, unbound=("80/TCP",)), ["172.30.0.11"], {})
    ready = pod_status(record(), ContainerState("c", running=True, ready=True), ["172.30.0.11"], waiting)
    assert waiting["phase"] == ready["phase"] == "Running"
    assert [c["status"] for c in waiting["conditions"] if c["type"] == "Ready"] == ["False"]
    assert [c["status"] for c in ready["conditions"] if c["type"] == "Ready"] == ["True"]
    assert ready["podIP"] == "10.0.0.5"
    assert ready["podIPs"] == [{"ip": "10.0.0.5"}, {"ip": "fd00::5"}]


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (3, "Failed")])
def test_a_pod_that_is_not_started_again_is_done(code: int, phase: str) -> None:
    found = pod_status(record(last_code=code), ContainerState("c", exit_code=code), ["172.30.0.11"], {})
    assert found["phase"] == phase
    assert found["containerStatuses"][0]["state"]["terminated"]["exitCode"] == code


def test_records_are_kept_and_a_broken_one_is_put_aside(tmp_path: Path) -> None:
    records = PodRecords(tmp_path)
    records.save(record())
    (tmp_path / "broken.json").write_text("{")
    assert records.load() == [record()]
    assert (tmp_path / "broken.corrupt").exists()
    records.remove("u1")
    assert records.get("u1") is None


def test_a_process_is_known_by_its_number_and_start() -> None:
    mine = os.getpid()
    assert alive(record(pid=mine, pid_start=start_time(mine)))
    assert not alive(record(pid=mine, pid_start=start_time(mine) + 1))
    assert not alive(record(pid=0, pid_start=0))


def test_the_first_cni_configuration_by_name_counts(tmp_path: Path) -> None:
    with pytest.raises(CniError, match="no CNI configuration"):
        load_network(tmp_path)
    (tmp_path / "10-b.conf").write_text('{"name": "b", "cniVersion": "0.4.0", "type": "x"}')
    (tmp_path / "05-a.conflist").write_text('{"name": "a", "cniVersion": "1.0.0", "plugins": [{"type": "y"}]}')
    assert (load_network(tmp_path).name, load_network(tmp_path).plugins) == ("a", [{"type": "y"}])
    (tmp_path / "05-a.conflist").unlink()
    assert load_network(tmp_path).plugins[0]["type"] == "x"
    (tmp_path / "00-bad.conflist").write_text("{")
    with pytest.raises(CniError, match=r"00-bad\.conflist"):
        load_network(tmp_path)


@pytest.mark.parametrize("name", ["", "Up", "a.b", "-a", "a-", "a" * 33, "a/b", "a_b"])
def test_a_lab_name_is_safe_in_every_place_that_it_is_used(name: str) -> None:
    with pytest.raises(LabError, match="lab name"):
        LabPlace(name)


def test_no_lab_has_namespaces_that_another_might_take_for_its_own() -> None:
    assert not LabPlace("a-b").outside.startswith(LabPlace("a").prefix)


def test_ports_of_the_command_line() -> None:
    assert parse_port("http:8080/tcp") == {"name": "http", "containerPort": 8080, "protocol": "TCP"}
    assert parse_port("53/udp") == {"containerPort": 53, "protocol": "UDP"}
    for bad in ("0/tcp", "65536/tcp", "x", "80/icmp", "UPPER:80/tcp"):
        with pytest.raises(LabError, match="--port"):
            parse_port(bad)


def test_a_pod_of_the_command_line_is_an_ordinary_pod() -> None:
    made = pod_object("web", "shop", ["run"], "node1", ["app=web"], "sa", ["http:80/tcp"])
    assert made["metadata"] == {"name": "web", "namespace": "shop", "labels": {"app": "web"}}
    assert made["spec"]["serviceAccountName"] == "sa"
    assert made["spec"]["nodeName"] == "node1"
    assert made["spec"]["containers"][0]["command"] == ["run"]
