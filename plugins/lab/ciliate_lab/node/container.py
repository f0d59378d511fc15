"""Running a container's command in a pod: what its manifest says, and the process that waits for it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ciliate_lab import namespaces
from ciliate_lab.node.record import PodRecord

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")

_ENTER = """
echo $$ >"$1/cgroup.procs" || exit 70
exec nsenter --net="$2" -- unshare --mount --uts --propagation=private -- /bin/sh -c "$3" ciliate-pod "$@"
"""
# Runs inside, with the same positional parameters. It outlives the kubelet and leaves the command's status in a file.
_INSIDE = """
echo "$4" >/proc/sys/kernel/hostname
mount -t sysfs sysfs /sys && mount --bind "$5" /etc/hosts && cd "$6" || exit 70
status=$7 begun=$8
shift 8
read -r uptime _ </proc/uptime && echo "$uptime" >"$begun"
env -i "$@"
code=$?
echo $code >"$status.new" && mv "$status.new" "$status"
exit $code
"""


class ContainerError(Exception):
    """A container of a manifest can't be run; the message says which part and what would be right."""


@dataclass(frozen=True)
class Port:
    """A declared port."""

    number: int
    protocol: str  # TCP, UDP, SCTP


@dataclass(frozen=True)
class Container:
    """What the first container of a pod asks for."""

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: str
    ports: list[Port]


def container_of(pod: Mapping[str, Any], addresses: list[str]) -> Container:
    """The first container of a Pod object. Raises ContainerError."""
    try:
        return _read(pod, addresses)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContainerError(f"spec.containers[0] is malformed: {type(error).__name__}: {error}") from error


def _read(pod: Mapping[str, Any], addresses: list[str]) -> Container:
    containers = (pod.get("spec") or {}).get("containers") or []
    if not containers:
        raise ContainerError("spec.containers is empty: give one container with a command")
    first = containers[0]
    environment = {"PATH": PATH, "HOME": "/root", "HOSTNAME": pod["metadata"]["name"]}
    for entry in first.get("env") or []:
        environment[entry["name"]] = _expand(_value(entry, pod, addresses), environment)
    command = [_expand(str(part), environment) for part in [*(first.get("command") or []), *(first.get("args") or [])]]
    if not first.get("command"):
        raise ContainerError("spec.containers[0].command is missing: a lab runs commands of this machine, not images")
    ports = [Port(int(p["containerPort"]), p.get("protocol", "TCP")) for p in first.get("ports") or []]
    return Container(first.get("name", "main"), command, environment, first.get("workingDir", "/"), ports)


def start(container: Container, record: PodRecord, exit_file: Path, begun: Path, hosts: Path) -> int:
    """Start the command in the pod's namespaces and cgroup; the pid of what waits for it. Raises OSError."""
    for path in (exit_file, begun):
        path.unlink(missing_ok=True)
    own = "".join(f"{address} {record.name}\n" for address in record.addresses)
    hosts.write_text(f"127.0.0.1 localhost\n::1 localhost\n{own}")
    Path(record.cgroup).mkdir(parents=True, exist_ok=True)
    Path(record.log).parent.mkdir(parents=True, exist_ok=True)
    settings = [f"{name}={value}" for name, value in container.environment.items()]
    arguments = [record.cgroup, str(namespaces.path(record.netns)), _INSIDE, record.name, str(hosts), container.folder]
    command = [str(exit_file), str(begun), *settings, *container.command]
    with Path(record.log).open("ab") as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _ENTER, "ciliate-pod", *arguments, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": PATH},
            start_new_session=True,
        )
    process.returncode = 0  # waited for by pid: a later kubelet has no such object
    return process.pid


def not_listening(pid: int, ports: list[Port]) -> list[Port]:
    """Those of the ports that nothing in the process's network namespace listens on yet."""
    return [port for port in ports if not _listens(pid, port)]


def _listens(pid: int, port: Port) -> bool:
    protocol = port.protocol.lower()
    if protocol == "sctp":
        lines = _lines(pid, "sctp/eps")
        return any(len(fields) > 5 and fields[5] == str(port.number) for fields in lines)
    wanted = f"{port.number:04X}"
    for family in (protocol, f"{protocol}6"):
        for fields in _lines(pid, family):
            local_port, state = fields[1].rpartition(":")[2], fields[3]
            if local_port == wanted and (state == "0A" or protocol == "udp"):
                return True
    return False


def _lines(pid: int, table: str) -> list[list[str]]:
    try:
        return [line.split() for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]]
    except OSError:
        return []


def _value(entry: Mapping[str, Any], pod: Mapping[str, Any], addresses: list[str]) -> str:
    source = entry.get("valueFrom")
    if source is None:
        return str(entry.get("value", ""))
    field = (source.get("fieldRef") or {}).get("fieldPath")
    known = {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": pod["metadata"].get("namespace", ""),
        "metadata.uid": pod["metadata"].get("uid", ""),
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
        "status.podIP": addresses[0] if addresses else "",
        "status.podIPs": ",".join(addresses),
    }
    if field not in known:
        raise ContainerError(f"env {entry['name']}: valueFrom must be a fieldRef to one of {', '.join(known)}")
    return str(known[field])


def _expand(text: str, environment: Mapping[str, str]) -> str:
    """$(NAME) by its value; $$ is a dollar; an unknown name stays as it is."""
    return _REFERENCE.sub(
        lambda match: "$" if match[0] == "$$" else environment.get(match[1], match[0]),
        text,
    )
