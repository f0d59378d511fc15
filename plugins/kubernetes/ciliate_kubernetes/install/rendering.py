"""An installation's objects, from the manifests beside this file and what a user has chosen."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
import yaml
from ciliate import __version__
from ciliate.store import Object

from ciliate_kubernetes.install.settings import OPERATOR, Checked

IMAGE = f"ciliate:{__version__}"
DIGEST = "ciliate.io/settings"
"""Annotation of pods: changes with the settings that they use, so that a change of them is a roll."""
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_AGENT_PORT, _OPERATOR_PORT, _OTHER_PORTS = 9879, 9234, 9860
_ORDER = (
    "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ConfigMap", "DaemonSet", "Deployment"
)  # fmt: skip
_CLUSTER_SCOPED = ("ClusterRole", "ClusterRoleBinding")


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """What a user has chosen beside settings."""

    namespace: str = "kube-system"
    image: str = IMAGE
    pull_policy: str = "IfNotPresent"
    operator_replicas: int = 1
    api_server: str = ""  # host:port, for clusters in which nobody serves the service `kubernetes` yet


def render(choices: Choices, checked: Checked) -> list[Object]:
    """All objects, in the order in which they are to be made."""
    objects = [*rights(choices), config_map(choices, checked.values), *workloads(choices, checked)]
    return sorted(objects, key=lambda obj: _ORDER.index(obj["kind"]))


def rights(choices: Choices) -> list[Object]:
    """Accounts, roles and bindings."""
    return [_placed(obj, choices.namespace) for obj in _load("rbac.yaml")]


def workloads(choices: Choices, checked: Checked) -> list[Object]:
    """What runs: the DaemonSet and the Deployment."""
    return [_placed(obj, choices.namespace) for obj in (_daemon_set(choices, checked), _deployment(choices, checked))]


def config_map(choices: Choices, values: Mapping[str, str]) -> Object:
    """The cluster's settings."""
    (obj,) = _load("config.yaml")
    return _placed({**obj, "data": dict(values)}, choices.namespace)


def default_settings() -> dict[str, str]:
    """The settings of a cluster for which nothing was chosen."""
    return dict(_load("config.yaml")[0]["data"])


def cleanup(choices: Choices) -> Object:
    """What puts nodes back as they were."""
    (obj,) = _load("cleanup.yaml")
    for container in obj["spec"]["template"]["spec"]["containers"]:
        container.update(image=choices.image, imagePullPolicy=choices.pull_policy)
    return _placed(obj, choices.namespace)


def to_yaml(objects: list[Object]) -> str:
    """Objects as one YAML stream."""
    return "---\n".join(yaml.safe_dump(obj, sort_keys=False, width=120) for obj in objects)


def _daemon_set(choices: Choices, checked: Checked) -> Object:
    (obj,) = _load("agent.yaml")
    template = obj["spec"]["template"]
    processes = [process for process in checked.processes if process != OPERATOR]
    digests = ",".join(checked.digest(process) for process in processes)
    template["metadata"]["annotations"][DIGEST] = digests
    others = sorted(process for process in processes if process != "agent")
    ports = {"agent": _AGENT_PORT, **{process: _OTHER_PORTS + i for i, process in enumerate(others)}}
    template["spec"]["containers"] = [_process(process, port) for process, port in ports.items()]
    _choose(template["spec"], choices)
    return obj


def _process(process: str, port: int) -> Object:
    container, of_agent = _load("process.yaml")
    if process == "agent":
        container["volumeMounts"] += of_agent.pop("volumeMounts")
        container.update(of_agent)
    words = [process] if process == "agent" else ["run", process]
    container.update(name=process, args=["ciliate", *words])
    _listen(container, port)
    return container


def _deployment(choices: Choices, checked: Checked) -> Object:
    (obj,) = _load("operator.yaml")
    obj["spec"]["replicas"] = choices.operator_replicas
    template = obj["spec"]["template"]
    template["metadata"]["annotations"] = {DIGEST: checked.digest(OPERATOR)}
    for container in template["spec"]["containers"]:
        _listen(container, _OPERATOR_PORT)
    _choose(template["spec"], choices)
    return obj


def _listen(container: Object, port: int) -> None:
    for variable in container["env"]:
        if variable["name"] == "CILIATE_HEALTH__LISTEN":
            variable["value"] = f"127.0.0.1:{port}"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if probe in container:
            container[probe]["httpGet"]["port"] = port


def _choose(spec: Object, choices: Choices) -> None:
    for container in [*spec.get("initContainers", ()), *spec["containers"]]:
        container.update(image=choices.image, imagePullPolicy=choices.pull_policy)
    host, _, port = choices.api_server.rpartition(":")
    for container in spec["containers"] if choices.api_server else ():
        container["env"] += [
            {"name": "KUBERNETES_SERVICE_HOST", "value": host.strip("[]")},
            {"name": "KUBERNETES_SERVICE_PORT", "value": port},
        ]


def _placed(obj: Object, namespace: str) -> Object:
    """An object in a namespace, unless it names one, and the subjects of bindings there."""
    if obj["kind"] not in _CLUSTER_SCOPED:
        obj["metadata"].setdefault("namespace", namespace)
    for subject in obj.get("subjects", ()):
        subject["namespace"] = namespace
    obj["metadata"].setdefault("labels", {}).setdefault("app.kubernetes.io/part-of", "cilium")
    return obj


@cache
def _parsed(name: str) -> tuple[Any, ...]:
    text = (files(__package__) / "manifests" / name).read_text(encoding="utf-8")
    return tuple(yaml.safe_load_all(text))


def _load(name: str) -> list[Object]:
    return [_plain(obj) for obj in _parsed(name)]


def _plain(value: Any) -> Any:
    """A copy in which nothing is shared: YAML's anchors make one object of two."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else copy.copy(value)
