"""All that a lab has on its machine and in the kernel, by name, to find what is leaked."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ciliate.api.client import Client
from ciliate_lab import cgroups, namespaces
from ciliate_lab.place import LabNode

from tests.node.labs import Lab, until

Inventory = dict[str, set[str]]
_PASSING = re.compile(r"(/logs/|\.watchers/|-wal$|-shm$|-journal$|\.users$|/running\.)")
"""Files that come and go by themselves."""
_COUNTED = {"hash", "lpm_trie", "percpu_hash", "hash_of_maps", "lru_hash"}
_FLOWS = re.compile(r"conntrack|fragment|flow|ct_|collect")
"""Maps whose entries are flows and end by their own timeouts."""


def inventory(lab: Lab) -> Inventory:
    """What there is, by what it is."""
    node = lab.place.node(1)
    endpoints = {str(row["id"]) for row in _table(node, "endpoints")}
    return {
        "network namespaces": set(namespaces.named(lab.place.prefix)),
        "devices": set(_devices(node)),
        "endpoints": endpoints,
        "addresses in use": {r["address"] for r in _table(node, "addresses") if not r["released"]},
        "map entries": set(_map_entries(node)),
        "pins": set(_pins(node, endpoints)),
        "processes": set(_processes(lab)),
        "cgroups": {str(path) for path in lab.place.cgroup.rglob("*") if path.is_dir()},
        "files": set(_files(lab, node)),
    }


def _pins(node: LabNode, endpoints: set[str]) -> Iterator[str]:
    """All but the links of endpoints that there are: those come in the background, some time after an ADD."""
    for path in node.bpf_mount.rglob("*"):
        if not (path.parent.name == "links" and path.name in endpoints):
            yield str(path.relative_to(node.bpf_mount))


def settled(lab: Lab) -> Inventory:
    """What there is when nothing is on its way out any more: an endpoint's devices go a moment after it."""
    node = lab.place.node(1)

    def quiet() -> bool:
        return sum(name.startswith("lxc") for name in _devices(node)) == len(_table(node, "endpoints"))

    until(quiet, 20, "every device belongs to an endpoint")
    return inventory(lab)


def differences(before: Inventory, after: Inventory) -> list[str]:
    """What is there now and was not, and what was and is not."""
    found = []
    for what, were in before.items():
        found += [f"{what}: {name} is new" for name in sorted(after[what] - were)]
        found += [f"{what}: {name} is gone" for name in sorted(were - after[what])]
    return found


def await_equal(lab: Lab, before: Inventory, limit: float = 30.0) -> None:
    """Wait until a lab has what it had. AssertionError that names what is leaked or lost."""
    left: list[str] = []

    def equal() -> bool:
        left[:] = differences(before, inventory(lab))
        return not left

    try:
        until(equal, limit, "the same inventory as before")
    except AssertionError as error:
        raise AssertionError(f"{error}: {left}") from error


def _devices(node: LabNode) -> Iterator[str]:
    found = subprocess.run(["ip", "-n", node.namespace, "-j", "link"], capture_output=True, text=True, check=True)
    for link in json.loads(found.stdout):
        yield str(link["ifname"])


def _table(node: LabNode, name: str) -> list[dict[str, str]]:
    with Client(node.socket("agent")) as client:
        rows: list[dict[str, str]] = client.get(f"/tables/{name}")["rows"]
        return rows


def _map_entries(node: LabNode) -> Iterator[str]:
    """How many entries each map has, as `name: number`: policies' and identities' numbers may change."""
    for pin in sorted((node.bpf_mount / "ciliate" / "maps").iterdir()):
        shown = _bpftool("show", pin)
        if shown["type"] in _COUNTED and not _FLOWS.search(pin.name):
            yield f"{pin.name}: {len(_bpftool('dump', pin))}"


def _bpftool(verb: str, pin: Path) -> dict[str, str]:
    command = ["bpftool", "-j", "map", verb, "pinned", str(pin)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _processes(lab: Lab) -> Iterator[str]:
    """Command lines with the cgroups they are in."""
    for group in [lab.place.cgroup, *lab.place.cgroup.rglob("*")]:
        if group.is_dir():
            for pid in cgroups.pids(group):
                try:
                    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
                yield f"{command.strip()} in {group.name}"


def _files(lab: Lab, node: LabNode) -> Iterator[str]:
    for path in lab.place.folder.rglob("*"):
        if not path.is_dir() and not path.is_relative_to(node.bpf_mount) and not _PASSING.search(str(path)):
            yield str(path.relative_to(lab.place.folder))
