"""Pods of a lab from the command line: make one, wait for it, run something in it, take it away."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from ciliate.cli.cluster import LocalCluster
from ciliate.model.kinds import POD
from ciliate.store import AlreadyExistsError, NotFoundError, Object, Store

from ciliate_lab.node.record import PodRecord, PodRecords, alive
from ciliate_lab.place import LabError, LabNode, LabPlace
from ciliate_lab.report import tail

POLL = 0.02
_PORT = re.compile(r"(?:(?P<name>[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?):)?(?P<number>\d+)(?:/(?P<protocol>[A-Za-z]+))?")


@asynccontextmanager
async def open_store(lab: LabPlace) -> AsyncIterator[Store]:
    """The lab's store, for the time of a command. Raises LabError if there is no such lab."""
    if not lab.config.exists():
        raise LabError(f"no lab {lab.name!r}; `ciliate lab up --name {lab.name}` starts one")
    store = LocalCluster(lab.name, lab.config).open_store()
    try:
        yield store
    finally:
        await store.close()


def pod_object(
    name: str,
    namespace: str,
    command: list[str],
    node: str = "",
    labels: Iterable[str] = (),
    service_account: str = "",
    ports: Iterable[str] = (),
) -> Object:
    """A Pod from what the command line says. Raises LabError."""
    container = {
        "name": "main",
        "image": "lab",
        "command": command,
        "workingDir": str(Path.cwd()),
        "ports": [parse_port(port) for port in ports],
    }
    spec: dict[str, Any] = {"containers": [container], "serviceAccountName": service_account or "default"}
    if node:
        spec["nodeName"] = node
    meta = {"name": name, "namespace": namespace, "labels": dict(_parse_label(label) for label in labels)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def parse_port(text: str) -> dict[str, Any]:
    """A container port from [NAME:]NUMBER[/PROTO]. Raises LabError."""
    match = _PORT.fullmatch(text)
    if match is None or not 0 < int(match["number"]) < 65536:
        raise LabError(f"--port {text}: must be NAME:NUMBER/PROTO, as http:8080/tcp, with a number from 1 to 65535")
    protocol = (match["protocol"] or "TCP").upper()
    if protocol not in ("TCP", "UDP", "SCTP"):
        raise LabError(f"--port {text}: the protocol must be tcp, udp or sctp")
    named = {"name": match["name"]} if match["name"] else {}
    return {**named, "containerPort": int(match["number"]), "protocol": protocol}


async def run_pod(lab: LabPlace, pod: Object, timeout: float) -> Object:
    """Make a pod and wait until it is Ready and its ports listen; the object. Raises LabError, StoreError."""
    meta = pod["metadata"]
    node = pod["spec"].get("nodeName")
    names = [known.name for known in lab.nodes()]
    if node and node not in names:
        raise LabError(f"--node {node}: no such node; lab {lab.name} has {', '.join(names)}")
    async with open_store(lab) as store:
        try:
            await store.create(pod)
        except AlreadyExistsError as error:
            remove = f"ciliate lab rm -n {meta['namespace']} {meta['name']}"
            raise LabError(
                f"there is a pod {meta['namespace']}/{meta['name']} already; `{remove}` removes it"
            ) from error
        return await wait_pod(lab, store, meta["name"], meta["namespace"], timeout)


async def wait_pod(lab: LabPlace, store: Store, name: str, namespace: str, timeout: float) -> Object:
    """Wait until a pod is Ready. Raises LabError, with what its command said, if it fails or takes too long."""
    deadline = time.monotonic() + timeout
    while True:
        pod = await store.get(POD, name, namespace)
        status = pod.get("status") or {}
        conditions = {c["type"]: c for c in status.get("conditions") or []}
        ready = conditions.get("Ready", {})
        if ready.get("status") == "True":
            return pod
        failed = status.get("phase") == "Failed"
        if failed or time.monotonic() > deadline:
            what = "failed" if failed else f"is not Ready after {timeout:g} s"
            why = ready.get("message") or ready.get("reason") or _unscheduled(pod)
            raise LabError(f"pod {namespace}/{name} {what}: {why}{_said(lab, pod)}")
        await asyncio.sleep(POLL)


async def remove_pod(lab: LabPlace, name: str, namespace: str, timeout: float) -> None:
    """Delete a pod and wait until nothing is left of it. Raises LabError, NotFoundError."""
    async with open_store(lab) as store:
        uid = (await store.delete(POD, name, namespace))["metadata"]["uid"]
        deadline = time.monotonic() + timeout
        with suppress(NotFoundError):
            while (await store.get(POD, name, namespace))["metadata"]["uid"] == uid:
                if time.monotonic() > deadline:
                    raise LabError(
                        f"pod {namespace}/{name} is not gone after {timeout:g} s; `ciliate lab status` says why"
                    )
                await asyncio.sleep(POLL)


async def find_pod(lab: LabPlace, name: str, namespace: str) -> tuple[Object, LabNode]:
    """A pod and its node. Raises LabError, NotFoundError."""
    async with open_store(lab) as store:
        pod = await store.get(POD, name, namespace)
    for node in lab.nodes():
        if node.name == pod["spec"].get("nodeName"):
            return pod, node
    raise LabError(f"pod {namespace}/{name}: {_unscheduled(pod)}")


def pod_record(pod: Object, node: LabNode) -> PodRecord:
    """What the kubelet knows of a running pod. Raises LabError if it does not run."""
    record = PodRecords(node.state_dir / "pods").get(pod["metadata"]["uid"])
    if record is None or not alive(record):
        where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        phase = (pod.get("status") or {}).get("phase", "Pending")
        raise LabError(f"pod {where} does not run (phase {phase}); `ciliate lab logs` shows what it said")
    return record


def become(record: PodRecord, command: list[str]) -> NoReturn:
    """Replace this process by a command inside a pod: its cgroup, network, mounts and host name. Raises LabError."""
    try:
        Path(record.cgroup, "cgroup.procs").write_text(str(os.getpid()))
        target = ["--target", str(record.pid), "--net", "--mount", "--uts", f"--wdns={Path.cwd()}"]
        os.execvp("nsenter", ["nsenter", *target, "--", *command])
    except OSError as error:
        raise LabError(f"entering pod {record.namespace}/{record.name}: {error}") from error


def _parse_label(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise LabError(f"-l {text}: must be KEY=VALUE")
    return key, value


def _unscheduled(pod: Object) -> str:
    node = pod["spec"].get("nodeName")
    if not node:
        return "it is not bound to a node: is one ready? `ciliate lab status` tells"
    return f"its node has not connected it yet; `ciliate lab logs --process {node}/agent` may say why"


def _said(lab: LabPlace, pod: Object) -> str:
    meta = pod["metadata"]
    for node in lab.nodes():
        if node.name == pod["spec"].get("nodeName") and (
            lines := tail(node.pod_log(meta["namespace"], meta["name"]), 10)
        ):
            return "\n  it said last:\n" + "\n".join(f"    {line}" for line in lines)
    return ""
