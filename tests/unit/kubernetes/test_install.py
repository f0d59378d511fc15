"""What an installation consists of, and which settings are refused before anything is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ciliate.cli.dispatch import run
from ciliate.config import ConfigError
from ciliate.store import Object
from ciliate_cni.plugin import CniPlugin
from ciliate_kubernetes.install.rendering import DIGEST, Choices, cleanup, default_settings, render, to_yaml
from ciliate_kubernetes.install.settings import Checked, check, parse_flags

ROOT = Path(__file__).resolve().parents[3]


def checked(**settings: str) -> Checked:
    return check({**default_settings(), **{key.replace("__", "."): value for key, value in settings.items()}})


def of_kind(objects: list[Object], kind: str) -> Object:
    (found,) = [obj for obj in objects if obj["kind"] == kind]
    return found


def spec(obj: Object) -> Any:
    return obj["spec"]["template"]["spec"]


def test_deploy_has_what_a_dry_run_prints(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("ciliate", "ciliate.commands", "", ["install", "--dry-run"])
    assert ended.value.code == 0
    made = (ROOT / "deploy" / "ciliate.yaml").read_text().partition("\n")[2]
    assert capsys.readouterr().out == made, "run `make manifests`"


def test_choices_go_where_they_belong() -> None:
    choices = Choices(
        namespace="net", image="mine:1", pull_policy="Never", operator_replicas=3, api_server="[fd77::1]:6443"
    )
    objects = render(choices, checked(cni__mtu="1400"))
    placed = {obj["metadata"]["name"]: obj["metadata"].get("namespace", "net") for obj in objects}
    assert placed.pop("ciliate-api-server") == "default"
    assert set(placed.values()) == {"net"}
    for obj in objects:
        assert all(subject["namespace"] == "net" for subject in obj.get("subjects", ()))
    agents, operator = of_kind(objects, "DaemonSet"), of_kind(objects, "Deployment")
    assert operator["spec"]["replicas"] == 3
    assert of_kind(objects, "ConfigMap")["data"]["cni.mtu"] == "1400"
    for workload in (agents, operator):
        for container in [*spec(workload).get("initContainers", ()), *spec(workload)["containers"]]:
            assert (container["image"], container["imagePullPolicy"]) == ("mine:1", "Never")
        values = {v["name"]: v.get("value") for c in spec(workload)["containers"] for v in c["env"]}
        assert (values["KUBERNETES_SERVICE_HOST"], values["KUBERNETES_SERVICE_PORT"]) == ("fd77::1", "6443")
    assert [c["image"] for c in spec(cleanup(choices))["containers"]] == ["mine:1"]


def test_each_process_of_a_node_is_a_container_with_a_health_port_of_its_own() -> None:
    made = Checked({}, {"agent": ["cni"], "hubble": ["hubble"], "dns": ["dns"], "operator": ["ipam"]}, [])
    containers = spec(of_kind(render(Choices(), made), "DaemonSet"))["containers"]
    assert [(c["name"], c["args"]) for c in containers] == [
        ("agent", ["ciliate", "agent"]),
        ("dns", ["ciliate", "run", "dns"]),
        ("hubble", ["ciliate", "run", "hubble"]),
    ]
    ports = []
    for container in containers:
        (listen,) = [v["value"] for v in container["env"] if v["name"] == "CILIATE_HEALTH__LISTEN"]
        (port,) = {container[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert listen == f"127.0.0.1:{port}"
        ports.append(port)
    assert len(set(ports)) == 3 and ports[0] == 9879


def test_a_setting_rolls_what_uses_it_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CniPlugin, "roles", ("agent",))

    def digests(made: Checked) -> tuple[str, str]:
        objects = render(Choices(), made)
        agents, operator = of_kind(objects, "DaemonSet"), of_kind(objects, "Deployment")
        both = [workload["spec"]["template"]["metadata"]["annotations"][DIGEST] for workload in (agents, operator)]
        return both[0], both[1]

    before = digests(checked())
    assert digests(checked(cni__mtu="1400"))[0] != before[0]
    both = digests(checked(log__level="debug"))
    assert both[0] != before[0] and both[1] != before[1]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("cni.mtux", "1", r"cni\.mtux \(configmap ciliate-config\): unknown key; known are .*mtu"),
        ("cni.mtu", "wide", r"cni\.mtu \(configmap ciliate-config\)"),
        ("nonsense.key", "1", "neither a section of the core nor a plugin"),
        ("store.kubeconfigs", "x", "kubeconfigs"),
        ("plugins", "[cni, policy]", "cni needs ipam"),
        ("a/b", "1", "must be section.key"),
    ],
)
def test_settings_that_processes_would_refuse_are_refused_before(key: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check({**default_settings(), key: value})


def test_a_plugin_that_is_not_installed_here_is_noted() -> None:
    (note,) = checked(plugins="[cni, ipam, policy, elsewhere]").notes
    assert "elsewhere" in note


def test_flags_must_have_a_value() -> None:
    assert parse_flags(["cni.mtu=1400", "log.level="]) == {"cni.mtu": "1400", "log.level": ""}
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        parse_flags(["cni.mtu"])


def test_manifests_say_no_more_than_kubernetes_reads() -> None:
    objects = list(yaml.safe_load_all(to_yaml(render(Choices(), checked()))))
    assert objects[0]["kind"] == "ServiceAccount"
    names = {(obj["kind"], obj["metadata"]["name"]) for obj in objects}
    assert len(names) == len(objects)
    for obj in objects:
        if "roleRef" in obj:
            assert (obj["roleRef"]["kind"], obj["roleRef"]["name"]) in names
            assert all((subject["kind"], subject["name"]) in names for subject in obj["subjects"])
