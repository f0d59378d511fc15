"""How a lab fares: what `lab up` waits for, and `lab status` shows."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ciliate.api.client import Client
from ciliate.api.routes import ApiError
from ciliate.cli.cluster import LocalCluster
from ciliate.config import load_settings
from ciliate.model.kinds import CILIUM_NODE, NODE, POD
from ciliate.store import Kind, NotFoundError, Object, StoreError

from ciliate_lab import namespaces, network
from ciliate_lab.node.record import PodRecords, alive, runs, start_time
from ciliate_lab.place import LabError, LabNode, LabPlace
from ciliate_lab.supervisor import RunningProcess, read_running

POLL = 0.05
HOPELESS = 3
"""Starts again after which a process that has ended will not come up: its configuration is refused, for instance."""
DEFAULT_PORTS = {"hubble": 4244, "relay": 4245}
_NO_SUPERVISOR = "the supervisor does not run: processes that end stay ended; `ciliate lab up --name {}` starts it anew"


def lab_status(lab: LabPlace) -> dict[str, Any]:
    """Everything that scripts ask for: nodes, processes with pids, sockets, namespaces, and why what is not ready.

    Raises LabError if there is no such lab.
    """
    if not lab.folder.exists():
        raise LabError(f"no lab {lab.name!r}; `ciliate lab up --name {lab.name}` starts one")
    running = read_running(lab)
    processes = [_process(state) for state in running.processes] if running else []
    objects = asyncio.run(_objects(lab))
    nodes = [_node(node, processes, objects) for node in lab.nodes()]
    supervisor = running.supervisor if running and runs(running.supervisor, start_time(running.supervisor)) else 0
    reasons = [] if supervisor else [_NO_SUPERVISOR.format(lab.name)]
    own = [p for p in processes if not p["node"]]
    reasons += [f"{p['name']}: {reason}" for p in own for reason in p["reasons"]]
    reasons += [f"{node['name']}: {reason}" for node in nodes for reason in node["reasons"]]
    relay = next((p for p in own if p["name"] == "relay"), None)
    reasons += _not_relayed(relay, lab.nodes()) if relay is not None and relay["ready"] else []
    return {
        "name": lab.name,
        "ready": not reasons,
        "reasons": reasons,
        "degraded": [f"{p['node']}: {p['name']}: {said}" for p in processes for said in p["degraded"]],
        "folder": str(lab.folder),
        "config": str(lab.config),
        "store": str(lab.store),
        "cgroup": str(lab.cgroup),
        "supervisor": {"pid": supervisor, "log": str(lab.supervisor_log)},
        "outside": {
            "netns": lab.outside,
            "netns_path": str(namespaces.path(lab.outside)),
            "gateways": list(network.GATEWAYS),
            "addresses": list(network.WORLD),
        },
        "relay": _relay(lab) if relay is not None else None,
        "processes": processes,
        "nodes": nodes,
        "pods": [_pod(lab, pod) for pod in objects[POD.kind]],
    }


def wait_ready(lab: LabPlace, timeout: float) -> None:
    """Wait until everything is ready. Raises LabError with what is not, and what its process said last."""
    deadline = time.monotonic() + timeout
    while True:
        status = lab_status(lab)
        if refusing := [process for process in status["processes"] if process["refused"]]:
            lines = [f"  - {name}: {reason}" for p in refusing for name, reason in p["refused"].items()]
            why = "\n".join(dict.fromkeys(lines))
            raise LabError(f"plugins are refused:\n{why}{_said(refusing)}")
        if status["ready"]:
            return
        if ended := [p for p in status["processes"] if not p["pid"] and p["restarts"] >= HOPELESS]:
            raise LabError(f"{', '.join(_name(p) for p in ended)} ends as soon as it is started:{_said(ended)}")
        if time.monotonic() > deadline:
            reasons = "\n".join(f"  - {reason}" for reason in status["reasons"])
            raise LabError(f"not ready after {timeout:g} s:\n{reasons}{_said(status['processes'])}")
        time.sleep(POLL)


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log; none if there is none."""
    try:
        return path.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def _said(processes: list[dict[str, Any]]) -> str:
    parts = []
    for process in processes:
        if process["reasons"] or process["degraded"]:
            lines = dict.fromkeys(tail(Path(process["log"]), 20))  # what is started again and again repeats itself
            said = "\n".join(f"    {line}" for line in lines)
            parts.append(f"\n  {_name(process)} said last ({process['log']}):\n{said}")
    return "".join(parts)


def _name(process: dict[str, Any]) -> str:
    return f"{process['node'] or 'lab'}/{process['name']}"


def _process(state: RunningProcess) -> dict[str, Any]:
    pid = state.pid if state.pid and runs(state.pid, start_time(state.pid)) else 0
    refused: dict[str, str] = {}
    degraded: list[str] = []
    reasons = [] if pid else [f"does not run{f' ({state.last_exit})' if state.last_exit else ''}"]
    if pid:
        try:
            with Client(state.socket, timeout=5.0) as client:
                answer = client.get("/status")
            refused = answer.get("refused", {})
            reasons += [f"{plugin}: {reason}" for plugin, said in answer["reasons"].items() for reason in said]
            degraded = [f"{plugin}: {reason}" for plugin, said in answer["degraded"].items() for reason in said]
        except ApiError as error:
            reasons.append(f"does not answer: {error}")
    return {
        "name": state.name,
        "node": state.node,
        "pid": pid,
        "refused": refused,
        "socket": state.socket,
        "log": state.log,
        "started": state.started,
        "restarts": state.restarts,
        "last_exit": state.last_exit,
        "ready": not reasons,
        "reasons": reasons,
        "degraded": degraded,
    }


def _node(node: LabNode, processes: list[dict[str, Any]], objects: dict[str, list[Object]]) -> dict[str, Any]:
    mine = [p for p in processes if p["node"] == node.name]
    reasons = [f"{p['name']}: {reason}" for p in mine for reason in p["reasons"]]
    registered = next((o for o in objects[NODE.kind] if o["metadata"]["name"] == node.name), None)
    cilium_node = next((o for o in objects[CILIUM_NODE.kind] if o["metadata"]["name"] == node.name), {})
    cidrs = ((cilium_node.get("spec") or {}).get("ipam") or {}).get("podCIDRs") or []
    if registered is None:
        reasons.append("has no Node object yet")
    else:
        conditions = (registered.get("status") or {}).get("conditions") or []
        reasons += [c["message"] for c in conditions if c["type"] == "Ready" and c["status"] != "True"]
    if not cidrs:
        reasons.append("has no pod ranges yet (CiliumNode spec.ipam.podCIDRs)")
    return {
        "name": node.name,
        "ready": not reasons,
        "reasons": reasons,
        "netns": node.namespace,
        "netns_path": str(namespaces.path(node.namespace)),
        "addresses": list(network.node_addresses(node.number)),
        "pod_cidrs": cidrs,
        "cgroup": str(node.cgroup),
        "bpffs": str(node.bpf_mount / "ciliate"),
        "config": str(node.config),
        "cni_conf_dir": str(node.conf_dir),
        "cni_bin_dir": str(node.bin_dir),
        "processes": mine,
        "sockets": {p["name"]: p["socket"] for p in mine},
        "hubble": _hubble(node) if any(p["name"] == "hubble" for p in mine) else None,
    }


def _hubble(node: LabNode) -> dict[str, Any]:
    """Where a node's flows are served: on the socket in plaintext, on the address with TLS."""
    server = f"unix://{node.hubble_socket}"
    return {"socket": str(node.hubble_socket), "server": server, "address": _address(node.config, "hubble", node)}


def _relay(lab: LabPlace) -> dict[str, Any]:
    """Where the flows of all nodes are served; the address is reached from the namespaces of the lab only."""
    server = f"unix://{lab.relay_socket}"
    return {"socket": str(lab.relay_socket), "server": server, "address": _address(lab.config, "relay", None)}


def _address(config: Path, section: str, node: LabNode | None) -> str:
    """Where a section's server listens, as others reach it; empty for nowhere."""
    default = DEFAULT_PORTS[section]
    given = load_settings(config, environment={}).tree.get(section, {}).get("listen_address", f":{default}")
    host, _, port = str(given or "").rpartition(":")
    if not port:
        return ""
    return f"{host or (network.node_addresses(node.number)[0] if node is not None else network.GATEWAYS[0])}:{port}"


def _not_relayed(relay: dict[str, Any], nodes: list[LabNode]) -> list[str]:
    """Nodes that the relay has no connection to, and why."""
    try:
        with Client(relay["socket"], timeout=5.0) as client:
            known = {peer["name"].rpartition("/")[2]: peer for peer in client.get("/peers")}
    except ApiError as error:
        return [f"relay: does not tell its peers: {error}"]
    reasons = []
    for node in nodes:
        peer = known.get(node.name)
        if peer is None:
            reasons.append(f"relay: does not know {node.name} yet")
        elif peer["state"] != "NODE_CONNECTED":
            reasons.append(f"relay: {node.name} {peer['reason']}")
    return reasons


def _pod(lab: LabPlace, pod: Object) -> dict[str, Any]:
    status = pod.get("status") or {}
    uid = pod["metadata"]["uid"]
    records = (PodRecords(node.state_dir / "pods").get(uid) for node in lab.nodes())
    record = next((record for record in records if record is not None), None)
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])
    return {
        "namespace": pod["metadata"]["namespace"],
        "name": pod["metadata"]["name"],
        "node": pod["spec"].get("nodeName", ""),
        "phase": status.get("phase", "Pending"),
        "ready": ready,
        "ips": [entry["ip"] for entry in status.get("podIPs") or []],
        "pid": record.pid if record and alive(record) else 0,
        "netns_path": str(namespaces.path(record.netns)) if record else "",
        "container_id": record.container_id if record else "",
        "log": record.log if record else "",
    }


async def _objects(lab: LabPlace) -> dict[str, list[Object]]:
    """Nodes, CiliumNodes and pods; none while the store is being made."""
    kinds: list[Kind] = [NODE, CILIUM_NODE, POD]
    found: dict[str, list[Object]] = {kind.kind: [] for kind in kinds}
    if not lab.store.exists():
        return found
    store = LocalCluster(lab.name, lab.config).open_store()
    try:
        for kind in kinds:
            with suppress(StoreError, NotFoundError):
                found[kind.kind] = (await store.list(kind)).items
    finally:
        await store.close()
    return found
