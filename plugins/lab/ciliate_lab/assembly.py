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

PLUGINS = ("cni", "ipam", "policy", "hubble", "relay", "lab")
OPTIONAL = ("hubble", "relay")
"""Plugins that a lab has if they are installed."""
Progress = Callable[[str], None]


def put_up(lab: LabPlace, count: int, overrides: Iterable[str], progress: Progress) -> None:
    """Make everything and start the processes, without waiting for them. On an error the caller tears down."""
    nodes = [lab.node(number) for number in range(1, count + 1)]
    progress(f"network: {lab.outside} and {', '.join(node.namespace for node in nodes)}")
    plugins = _write_configs(lab, nodes, list(overrides))
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
    specs = _processes(lab, nodes, plugins)
    lab.processes.write_bytes(msgspec.json.encode(specs))
    progress("processes: " + ", ".join(f"{spec.node}/{spec.name}" if spec.node else spec.name for spec in specs))
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


def _write_configs(lab: LabPlace, nodes: list[LabNode], overrides: list[str]) -> list[str]:
    """Write all; the plugins that the lab has."""
    own = {
        "name": "operator",
        "run_dir": str(lab.run_dir),
        "state_dir": str(lab.folder / "state"),
        "bpffs": str(lab.folder / "bpf"),
    }
    sections: dict[str, Any] = {
        "lab": {"name": lab.name},
        "relay": {"peer_service": [f"unix://{node.hubble_socket}" for node in nodes]},
    }
    plugins = _write_config(lab, lab.config, own, sections, overrides)
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
    return plugins


def _write_config(
    lab: LabPlace, path: Path, node: dict[str, str], sections: dict[str, Any], overrides: list[str]
) -> list[str]:
    """Write one; the plugins that it names."""
    installed = available()
    plugins = [name for name in PLUGINS if name not in OPTIONAL or name in installed]
    tree: dict[str, Any] = {
        "cluster": {"name": "default"},
        "node": node,
        "plugins": plugins,
        "store": {"driver": "local", "path": str(lab.store)},
        **{name: section for name, section in sections.items() if name in plugins},
    }
    settings = load_settings(None, environment={})
    settings.set("", tree, "lab")
    settings.set("", check_overrides(overrides), "--set")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings.tree, sort_keys=False))
    return core_config(settings).plugins


def _processes(lab: LabPlace, nodes: list[LabNode], plugins: list[str]) -> list[ProcessSpec]:
    """What is to run, in the order of its start."""
    own, of_node = [("operator", ["operator"])], [("agent", ["agent"]), ("kubelet", ["run", "kubelet"])]
    if "hubble" in plugins:
        of_node.append(("hubble", ["run", "hubble"]))
    if "relay" in plugins:
        own.append(("relay", ["relay", "--set", "node.name=relay"]))
    program = str(Path(sys.executable).parent / "ciliate")
    specs = [
        ProcessSpec(
            name=name,
            node="",
            argv=[program, *words, "--config", str(lab.config)],
            namespace=lab.outside,
            cgroup=str(lab.cgroup / name),
            log=str(lab.logs / f"{name}.log"),
            socket=str(lab.socket(name)),
        )
        for name, words in own
    ]
    specs += [
        ProcessSpec(
            name=name,
            node=node.name,
            argv=[program, *words, "--config", str(node.config)],
            namespace=node.namespace,
            cgroup=str(node.cgroup / name),
            log=str(node.logs / f"{name}.log"),
            socket=str(node.socket(name)),
        )
        for node in nodes
        for name, words in of_node
    ]
    return specs
