"""`ciliate status` of a Kubernetes cluster: workloads, their pods, and what those that are not ready say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ciliate.api.routes import ApiError
from ciliate.cli.report import Component, Problem, Report, problems_of
from ciliate.model.kinds import CILIUM_ENDPOINT, CILIUM_NODE, NODE, POD
from ciliate.store import Kind, MissingKindError, NotFoundError, Object, Store

from ciliate_kubernetes.install import kinds
from ciliate_kubernetes.install.installation import AGENT, OPERATOR
from ciliate_kubernetes.install.pods import is_ready
from ciliate_kubernetes.install.pods import problems_of as problems_of_pod

if TYPE_CHECKING:
    from ciliate_kubernetes.cli.cluster import KubernetesCluster

_ASKED_MOST = 20
"""Containers that are asked why they are not ready; of the others the pod's status is told."""
_POD_FIELDS = ("metadata.labels", "metadata.deletionTimestamp", "spec.nodeName", "spec.hostNetwork", "status")


def make_report(cluster: KubernetesCluster) -> Report:
    """The whole of it. Raises StoreError."""
    found: dict[str, Any] = cluster.work(lambda store: _read(store, cluster.namespace))
    report = Report(cluster=cluster.name)
    for name, kind, workload in (("agent", kinds.DAEMON_SET, AGENT), ("operator", kinds.DEPLOYMENT, OPERATOR)):
        _add_component(report, name, kind, found[name], [p for p in found["own"] if _name(p) == f"ciliate-{name}"])
        if found[name] is None:
            text = f"{kind.kind} {cluster.namespace}/{workload} is not there; `ciliate install` makes it"
            report.problems.append(Problem(component=name, where=workload, text=text))
    _ask(cluster, report, found["own"])
    _look_at_nodes(report, found)
    report.pods = _managed(found["pods"], found["endpoints"])
    return report


async def _read(store: Store, namespace: str) -> dict[str, Any]:
    async def get(kind: Kind, name: str) -> Object | None:
        try:
            return await store.get(kind, name, namespace)
        except NotFoundError:
            return None

    async def every(kind: Kind, *fields: str) -> list[Object]:
        try:
            return (await store.list(kind.only(*fields))).items
        except MissingKindError:
            return []

    pods = await every(POD, *_POD_FIELDS)
    return {
        "agent": await get(kinds.DAEMON_SET, AGENT),
        "operator": await get(kinds.DEPLOYMENT, OPERATOR),
        "pods": pods,
        "own": [p for p in pods if p["metadata"].get("namespace") == namespace and _name(p).startswith("ciliate-")],
        "endpoints": await every(CILIUM_ENDPOINT, "metadata.name"),
        "nodes": await every(NODE, "metadata.labels"),
        "cilium_nodes": await every(CILIUM_NODE, "status"),
    }


def _name(pod: Object) -> str:
    return str((pod["metadata"].get("labels") or {}).get("app.kubernetes.io/name", ""))


def _add_component(report: Report, name: str, kind: Kind, workload: Object | None, pods: list[Object]) -> None:
    if workload is None:
        return
    status = workload.get("status") or {}
    agents = kind is kinds.DAEMON_SET
    desired = status.get("desiredNumberScheduled", 0) if agents else workload["spec"].get("replicas", 1)
    component = Component(
        name=name,
        workload=f"{kind.kind} {workload['metadata']['name']}",
        desired=desired,
        ready=status.get("numberReady" if agents else "readyReplicas", 0),
        available=status.get("numberAvailable" if agents else "availableReplicas", 0),
    )
    for pod in pods:
        phase = (pod.get("status") or {}).get("phase", "Unknown")
        component.phases[phase] = component.phases.get(phase, 0) + 1
        for container in {c["image"] for c in (pod.get("status") or {}).get("containerStatuses") or ()}:
            component.versions[container] = component.versions.get(container, 0) + 1
        if not is_ready(pod):
            where = pod["metadata"]["name"]
            texts = problems_of_pod(pod) or [f"on {pod['spec'].get('nodeName', 'no node')}: not ready ({phase})"]
            report.problems += [Problem(component=name, where=where, text=text) for text in texts]
    rolled = status.get("updatedNumberScheduled" if agents else "updatedReplicas", 0)
    current = status.get("observedGeneration", 0) >= workload["metadata"].get("generation", 0)
    if not current or rolled < desired or component.available < desired:
        text = f"{rolled} of {desired} pods are of the newest version, {component.available} available"
        report.problems.append(Problem(component=name, where=component.workload, text=text))
    report.components.append(component)


def _ask(cluster: KubernetesCluster, report: Report, pods: list[Object]) -> None:
    """Let containers that run and are not ready say why."""
    unready = [
        (_name(pod).removeprefix("ciliate-"), pod["metadata"]["name"], container["name"])
        for pod in pods
        for container in (pod.get("status") or {}).get("containerStatuses") or ()
        if not container["ready"] and "running" in (container.get("state") or {})
    ][:_ASKED_MOST]

    def ask(component: str, pod: str, process: str) -> list[Problem]:
        try:
            with cluster.client_in(pod, process, process, 5.0) as client:
                return problems_of(component, f"{pod}/{process}", client.get("/status"))
        except ApiError as error:
            return [Problem(component=component, where=f"{pod}/{process}", text=str(error))]

    with ThreadPoolExecutor(_ASKED_MOST) as threads:
        for problems in threads.map(lambda which: ask(*which), unready):
            report.problems += problems


def _look_at_nodes(report: Report, found: dict[str, Any]) -> None:
    running = {pod["spec"].get("nodeName") for pod in found["own"] if _name(pod) == "ciliate-agent"}
    for node in found["nodes"] if found["agent"] is not None else ():
        name = node["metadata"]["name"]
        excluded = (node["metadata"].get("labels") or {}).get("cilium.io/no-schedule") == "true"
        if name not in running and not excluded:
            report.problems.append(Problem(component="agent", where=name, text="no agent on this node"))
    for node in found["cilium_nodes"]:
        error = (((node.get("status") or {}).get("ipam") or {}).get("operator-status") or {}).get("error")
        if error:
            report.problems.append(Problem(component="operator", where=node["metadata"]["name"], text=error))


def _managed(pods: list[Object], endpoints: list[Object]) -> tuple[int, int]:
    """(pods with an endpoint, pods that should have one)."""
    known = {(e["metadata"].get("namespace"), e["metadata"]["name"]) for e in endpoints}
    wanted = [
        (pod["metadata"].get("namespace"), pod["metadata"]["name"])
        for pod in pods
        if not pod["spec"].get("hostNetwork") and (pod.get("status") or {}).get("phase") in ("Pending", "Running")
    ]
    return sum(pod in known for pod in wanted), len(wanted)
