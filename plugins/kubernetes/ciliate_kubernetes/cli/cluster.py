"""The driver `kubernetes` of the group `ciliate.clusters`: a cluster that is reached through its API server."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ciliate.api.client import Client
from ciliate.cli.cluster import Cluster
from ciliate.cli.dispatch import CONTEXT, CommandError
from ciliate.cli.report import Report
from ciliate.config import CoreConfig, StoreSection, core_config, load_settings
from ciliate.loading import load_driver
from ciliate.model.kinds import POD
from ciliate.store import Object, Store

from ciliate_kubernetes.cli import kubeconfig

T = TypeVar("T")
NAMESPACE = "CILIATE_NAMESPACE"
DEFAULT_NAMESPACE = "kube-system"


def find(name: str) -> Cluster | None:
    """See `ciliate.cli.cluster.ClusterDriver`: a context of the kubeconfig, or the cluster of the pod this runs in."""
    if paths := kubeconfig.files():
        current, names = kubeconfig.contexts(paths)
        if name and name not in names:
            if name == os.environ.get(CONTEXT):
                raise CommandError(f"--context {name}: {paths[0]} has no such context; there are {', '.join(names)}")
            return None
        chosen = name or current
        if not chosen:
            raise CommandError(f"{paths[0]} has no current context; name one of {', '.join(names)} with --context")
        return KubernetesCluster(chosen, {"kubeconfig": ":".join(map(str, paths)), "context": chosen})
    return KubernetesCluster("kubernetes", {}) if not name and kubeconfig.in_pod() else None


def require() -> KubernetesCluster:
    """The cluster that --context names, or the current one. Raises CommandError if there is no kubeconfig."""
    found = find(os.environ.get(CONTEXT, ""))
    if not isinstance(found, KubernetesCluster):
        raise CommandError("no kubeconfig is to be found; give --kubeconfig FILE, or set KUBECONFIG")
    return found


class KubernetesCluster(Cluster):
    """Ciliate in a Kubernetes cluster, in the namespace that CILIATE_NAMESPACE names."""

    def __init__(self, name: str, store: dict[str, Any], namespace: str = "") -> None:
        self.name = name
        self.namespace = namespace or os.environ.get(NAMESPACE) or DEFAULT_NAMESPACE
        self._store = store

    @property
    def config(self) -> CoreConfig:
        """The cluster's, with a store that is reached as the kubeconfig says."""
        with tempfile.TemporaryDirectory() as folder:
            for key, value in self.settings().items():
                Path(folder, key).write_text(value)
            config = core_config(load_settings(Path(folder), environment={}))
        config.store = StoreSection(driver="kubernetes", options=dict(self._store))
        return config

    def nodes(self) -> list[str]:
        """Those with an agent's pod."""
        return sorted(pod["spec"]["nodeName"] for pod in self._agents())

    def client(self, node: str = "", process: str = "", timeout: float | None = 30.0) -> Client:
        """By a program that is run in the agent's pod."""
        pods = {pod["spec"]["nodeName"]: pod["metadata"]["name"] for pod in self._agents()}
        if not pods:
            raise CommandError(f"cluster {self.name}: no agent runs in namespace {self.namespace}: `ciliate install`")
        if node and node not in pods:
            raise CommandError(f"cluster {self.name}: no agent on node {node!r}; there are {', '.join(sorted(pods))}")
        return self.client_in(pods[node or min(pods)], "agent", process, timeout)

    def client_in(self, pod: str, container: str, process: str, timeout: float | None) -> Client:
        """A client of a process in a container of a pod of ours. Raises NotServedError."""
        from ciliate_kubernetes.cli.execution import open_client
        from ciliate_kubernetes.store.config import parse_options

        return open_client(parse_options(self._store), self.namespace, pod, container, process, timeout)

    def report(self) -> Report:
        """From the workloads, their pods, and what agents that are not ready say."""
        from ciliate_kubernetes.cli.report import make_report

        return make_report(self)

    def settings(self) -> dict[str, str]:
        """The ConfigMap's keys; the defaults of an installation where there is none."""
        from ciliate_kubernetes.install.installation import Installation
        from ciliate_kubernetes.install.rendering import default_settings

        installed = self.work(lambda store: Installation(store, self.namespace).read())
        return default_settings() if installed is None else installed.settings

    def change(self, values: Mapping[str, str | None], restart: bool = True) -> list[str]:
        """See `Cluster.change`: the ConfigMap, then a roll of what uses it."""
        from ciliate_kubernetes.install.installation import Installation
        from ciliate_kubernetes.install.settings import check

        said: list[str] = []

        async def change(store: Store) -> None:
            installation = Installation(store, self.namespace)
            installed = await installation.read()
            if installed is None:
                raise CommandError(f"Ciliate is not installed in namespace {self.namespace} of cluster {self.name}")
            wanted = {**installed.settings, **{key: value for key, value in values.items() if value is not None}}
            for key, value in values.items():
                if value is None and wanted.pop(key, None) is None:
                    raise CommandError(f"{key} is not set; `ciliate config view` shows what is")
            checked = check(wanted)
            said.extend(checked.notes)
            await installation.change(installed, checked, restart, said.append)

        self.work(change)
        return said

    def work(self, use: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        """What an async function does with the store. Raises StoreError."""
        from ciliate_kubernetes.install.kinds import CUSTOM_RESOURCE_DEFINITION, INSTALLED, SECRET

        async def run() -> T:
            driver = load_driver("ciliate.store", "kubernetes")
            store: Store = driver(self._store, (*INSTALLED, CUSTOM_RESOURCE_DEFINITION, SECRET))
            try:
                return await use(store)
            finally:
                await store.close()

        return asyncio.run(run())

    def _agents(self) -> list[Object]:
        """Pods of agents that run."""
        labels = {"app.kubernetes.io/name": "ciliate-agent"}
        listed = self.work(lambda store: store.list(POD, self.namespace, None, labels))
        running = [pod for pod in listed.items if (pod.get("status") or {}).get("phase") == "Running"]
        return [pod for pod in running if not pod["metadata"].get("deletionTimestamp")]
