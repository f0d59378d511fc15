"""Putting a lab up: configuration, network, mounts, cgroups, processes, and the wait until all are ready."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import yaml
from ciliate.config import ConfigError, core_config, load_settings
from ciliate.loading import available

from ciliate_lab import cgroups, network, supervisor, system
from ciliate_lab.place import LabError, LabNode, LabPlace
from ciliate_lab.supervisor import ProcessSpec

PLUGINS = ["cni", "ipam", "policy", "lab"]
Progress = Callable[[str], None]


def put_up(lab: LabPlace, count: int, overrides: Iterable[str], progress: Progress) -> None:
    """Make everything and start the processes, without waiting for them. On an error the caller tears down."""
    nodes = [lab.node(number) for number in range(1, count + 1)]
    progress(f"network: {lab.outside} and {', '.join(node.namespace for node in nodes)}")
    _write_configs(lab, nodes, list(overrides))
    network.build_outside(lab)
    for node in nodes:
        network.build_node(node)
    progress("bpffs and cgroups")
    for node in nodes:
        node.bpf_mount.mkdir()
        try:
            system.mount("bpf", node.bpf_mount, "bpf")
        except OSError as error:
            raise LabError(f"{error}: a node needs a bpffs of its own; is CAP_SYS_ADMIN missing?") from error
        cgroups.create(node.cgroup)
    _write_processes(lab, nodes)
    progress("processes: operator, " + ", ".join(f"agent and kubelet of {node.name}" for node in nodes))
    supervisor.launch(lab)


def check_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Settings from `--set KEY=VALUE`, as a tree. Raises LabError."""
    try:
        settings = load_settings(None, overrides, environment={})
        absent = [name for name in core_config(settings).plugins if name not in available()]
    except ConfigError as error:
        raise LabError(str(error)) from error
    if absent:
        raise LabError(f"plugins: {', '.join(absent)}: not installed; available are {', '.join(available())}")
    return settings.tree


def _write_configs(lab: LabPlace, nodes: list[LabNode], overrides: list[str]) -> None:
    own = {
        "name": "operator",
        "run_dir": str(lab.operator_socket.parent),
        "state_dir": str(lab.folder / "state"),
        "bpffs": str(lab.folder / "bpf"),
    }
    _write_config(lab, lab.config, own, {"lab": {"name": lab.name}}, overrides)
    for node in nodes:
        for folder in (node.run_dir, node.state_dir, node.conf_dir, node.bin_dir, node.logs):
            folder.mkdir(parents=True)
        own = {
            "name": node.name,
            "run_dir": str(node.run_dir),
            "state_dir": str(node.state_dir),
            "bpffs": str(node.bpf_mount / "ciliate"),
        }
        sections = {
            "lab": {"name": lab.name, "number": node.number},
            "cni": {"conf_dir": str(node.conf_dir), "bin_dir": str(node.bin_dir)},
        }
        _write_config(lab, node.config, own, sections, overrides)


def _write_config(
    lab: LabPlace, path: Path, node: dict[str, str], sections: dict[str, Any], overrides: list[str]
) -> None:
    tree: dict[str, Any] = {
        "cluster": {"name": "default"},
        "node": node,
        "plugins": PLUGINS,
        "store": {"driver": "local", "path": str(lab.store)},
        **sections,
    }
    settings = load_settings(None, environment={})
    settings.set("", tree, "lab")
    settings.set("", check_overrides(overrides), "--set")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings.tree, sort_keys=False))


def _write_processes(lab: LabPlace, nodes: list[LabNode]) -> None:
    program = str(Path(sys.executable).parent / "ciliate")
    specs = [
        ProcessSpec(
            name="operator",
            node="",
            argv=[program, "operator", "--config", str(lab.config)],
            namespace=lab.outside,
            cgroup=str(lab.cgroup / "operator"),
            log=str(lab.operator_log),
            socket=str(lab.operator_socket),
        )
    ]
    for node in nodes:
        for name, words in (("agent", ["agent"]), ("kubelet", ["run", "kubelet"])):
            specs.append(
                ProcessSpec(
                    name=name,
                    node=node.name,
                    argv=[program, *words, "--config", str(node.config)],
                    namespace=node.namespace,
                    cgroup=str(node.cgroup / name),
                    log=str(node.logs / f"{name}.log"),
                    socket=str(node.socket(name)),
                )
            )
    lab.processes.write_bytes(msgspec.json.encode(specs))
