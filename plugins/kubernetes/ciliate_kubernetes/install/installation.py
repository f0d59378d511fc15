"""What is installed in a cluster: read, made, changed, and taken away again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from ciliate.leadership import LEASE, LOCK
from ciliate.model.kinds import CILIUM_ENDPOINT, CILIUM_IDENTITY, CILIUM_NODE, NAMESPACE, NODE, POD
from ciliate.model.policy_report import PREFIX
from ciliate.store import ConflictError, Kind, MissingKindError, NotFoundError, Object, Store, object_key

from ciliate_kubernetes.install import kinds
from ciliate_kubernetes.install.pods import is_ready, why
from ciliate_kubernetes.install.rendering import Choices, cleanup, config_map, render, rights, workloads
from ciliate_kubernetes.install.settings import CONFIG_MAP_NAME, Checked

OWNER = "install"
"""Who the API server notes as manager of what is installed: `ciliate-install`."""
_IS_UP = "CiliumIsUp"
"""Reason of the condition NetworkUnavailable that the operator sets."""
AGENT, OPERATOR, CLEANUP = "ciliate", "ciliate-operator", "ciliate-cleanup"
_LEDGER, _CA = "ciliate-ipam", "cilium-ca"
_CERTIFICATES = {"app.kubernetes.io/managed-by": "ciliate"}
"""Labels of Secrets that the operator has made."""
_POLL = 0.25
Say = Callable[[str], None]


class InstallError(Exception):
    """An installation can't be made or removed; the message says why, and what is left."""


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """What a cluster has: the settings of its ConfigMap and what was chosen when it was installed."""

    settings: dict[str, str]
    choices: Choices


class Installation:
    """One cluster's, in one namespace."""

    def __init__(self, store: Store, namespace: str) -> None:
        self._store = store
        self._namespace = namespace

    async def read(self) -> Installed | None:
        """What is installed; None: nothing. Raises StoreError."""
        found = await self._get(kinds.CONFIG_MAP, CONFIG_MAP_NAME)
        agents = await self._get(kinds.DAEMON_SET, AGENT)
        operator = await self._get(kinds.DEPLOYMENT, OPERATOR)
        removing = await self._get(kinds.DAEMON_SET, CLEANUP)  # of an uninstall that did not come to its end
        if not (found or agents or operator or removing):
            return None
        choices = _choices(self._namespace, agents or removing or {}, operator or {})
        return Installed(settings=dict((found or {}).get("data") or {}), choices=choices)

    async def apply(self, choices: Choices, checked: Checked, say: Say) -> None:
        """Make everything, or make it as it should be. Raises StoreError."""
        if await self._get(NAMESPACE, self._namespace) is None:
            await self._apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self._namespace}}, say)
        for obj in render(choices, checked):
            await self._apply(obj, say)

    async def change(self, installed: Installed, checked: Checked, restart: bool, say: Say) -> None:
        """Write settings; with `restart` what uses those that changed is started anew. Raises StoreError."""
        await self._apply(config_map(installed.choices, checked.values), say)
        for obj in workloads(installed.choices, checked) if restart else ():
            await self._apply(obj, say)

    async def remove(self, choices: Choices, limit: float, definitions: bool, say: Say) -> None:
        """Take everything away, nodes' state first. Raises InstallError if a node could not be put back, StoreError."""
        deadline = time.monotonic() + limit
        await self._delete(kinds.DEPLOYMENT, OPERATOR, say)
        await self._delete(kinds.DAEMON_SET, AGENT, say)
        for name in ("ciliate-agent", "ciliate-operator"):
            await self._until(deadline, f"pods of {name} end", partial(self._gone, name))
        await self._clean_nodes(choices, deadline, say)
        for kind in (CILIUM_ENDPOINT, CILIUM_IDENTITY, CILIUM_NODE):
            await self._delete_all(kind, say)
        await self._take_back_conditions(say)
        if definitions:
            await self.remove_definitions(say)
        for kind, name, namespace in [*await self._made_by_processes(), *self._rest(choices)]:
            await self._delete(kind, name, say, namespace)

    async def remove_definitions(self, say: Say) -> None:
        """Take the kinds of cilium.io away, and so all objects of them. Raises StoreError."""
        for obj in await self._list(kinds.CUSTOM_RESOURCE_DEFINITION.only("spec.group"), None):
            if obj["spec"]["group"] == "cilium.io":
                await self._delete(kinds.CUSTOM_RESOURCE_DEFINITION, obj["metadata"]["name"], say)

    async def _made_by_processes(self) -> list[tuple[Kind, str, str]]:
        """(kind, name, namespace) of nodes' reports and of certificates; a CA may be the user's, and stays."""
        leases = await self._list(LEASE.only("metadata.name"), self._namespace)
        secrets = (
            await self._store.list(kinds.SECRET.only("metadata.name"), self._namespace, None, _CERTIFICATES)
        ).items
        names = [(LEASE, lease["metadata"]["name"]) for lease in leases]
        found = [(kind, name) for kind, name in names if name.startswith(PREFIX)]
        found += [(kinds.SECRET, secret["metadata"]["name"]) for secret in secrets]
        return [(kind, name, self._namespace) for kind, name in found if name != _CA]

    def _rest(self, choices: Choices) -> list[tuple[Kind, str, str]]:
        """(kind, name, namespace) of what is installed beside workloads, bindings first, settings last."""
        own = [
            (_kind(obj), obj["metadata"]["name"], obj["metadata"].get("namespace", ""))
            for obj in reversed(rights(choices))
        ]
        ours = self._namespace
        return [*own, (kinds.CONFIG_MAP, _LEDGER, ours), (LEASE, LOCK, ours), (kinds.CONFIG_MAP, CONFIG_MAP_NAME, ours)]

    async def _clean_nodes(self, choices: Choices, deadline: float, say: Say) -> None:
        """Run the cleanup on every node, and wait until each has been put back."""
        obj = cleanup(choices)
        await self._apply(obj, say)
        try:
            await self._until(deadline, "nodes are put back", self._cleaned)
        except TimeoutError:
            lacking = [
                f"{pod['spec'].get('nodeName')}: {why(pod)}" for pod in await self._pods(CLEANUP) if not is_ready(pod)
            ]
            raise InstallError(
                f"these nodes are not put back: {'; '.join(lacking)}. The DaemonSet {CLEANUP} goes on trying; run"
                " `ciliate uninstall` again"
            ) from None
        await self._delete(kinds.DAEMON_SET, CLEANUP, say)
        await self._until(deadline + 30, f"pods of {CLEANUP} end", partial(self._gone, CLEANUP))

    async def _take_back_conditions(self, say: Say) -> None:
        """Nodes' networks are not ours to speak of any more."""
        for listed in await self._list(NODE.only("metadata.name"), None):
            name = listed["metadata"]["name"]
            while True:
                try:
                    node = await self._store.get(NODE, name)
                    status = node.get("status") or {}
                    conditions = [c for c in status.get("conditions") or () if c.get("reason") != _IS_UP]
                    if len(conditions) < len(status.get("conditions") or ()):
                        await self._store.update_status({**node, "status": {**status, "conditions": conditions}})
                        say(f"node/{name} condition {_IS_UP} removed")
                except ConflictError:
                    continue
                except NotFoundError:
                    pass
                break

    async def _cleaned(self) -> bool:
        status = ((await self._get(kinds.DAEMON_SET, CLEANUP)) or {}).get("status") or {}
        observed, ready, wanted = (
            int(status.get(key, 0)) for key in ("observedGeneration", "numberReady", "desiredNumberScheduled")
        )
        return observed > 0 and ready >= wanted

    async def _gone(self, name: str) -> bool:
        return not await self._pods(name)

    async def _pods(self, name: str) -> list[Object]:
        labels = {"app.kubernetes.io/name": name}
        return (await self._store.list(POD, self._namespace, None, labels)).items

    async def _until(self, deadline: float, what: str, condition: Callable[[], Any]) -> None:
        """Raises TimeoutError."""
        while not await condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not in time")
            await asyncio.sleep(_POLL)

    async def _apply(self, obj: Object, say: Say) -> None:
        before = await self._get(_kind(obj), obj["metadata"]["name"], obj["metadata"].get("namespace", ""))
        after = await self._store.apply(obj, OWNER)
        done = "created" if before is None else "unchanged" if _said(before) == _said(after) else "configured"
        say(f"{obj['kind'].lower()}/{obj['metadata']['name']} {done}")

    async def _delete(self, kind: Kind, name: str, say: Say, namespace: str | None = None) -> None:
        place = (self._namespace if namespace is None else namespace) if kind.namespaced else ""
        try:
            await self._store.delete(kind, name, place)
        except (NotFoundError, MissingKindError):
            return
        say(f"{kind.kind.lower()}/{name} deleted")

    async def _delete_all(self, kind: Kind, say: Say) -> None:
        found = await self._list(kind, None)
        for obj in found:
            key = object_key(obj)
            await self._delete(kind, key.name, lambda _: None, key.namespace)
        if found:
            say(f"{len(found)} {kind.plural} deleted")

    async def _list(self, kind: Kind, namespace: str | None) -> list[Object]:
        try:
            return (await self._store.list(kind, namespace)).items
        except MissingKindError:
            return []

    async def _get(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        try:
            return await self._store.get(kind, name, (namespace or self._namespace) if kind.namespaced else "")
        except NotFoundError:
            return None


def _choices(namespace: str, agents: Mapping[str, Any], operator: Mapping[str, Any]) -> Choices:
    """What was chosen, as the workloads have it."""
    made: dict[str, Any] = {"namespace": namespace}
    for obj in (operator, agents):
        for container in _spec(obj).get("containers", ()):
            made["image"], made["pull_policy"] = container["image"], container.get("imagePullPolicy", "IfNotPresent")
            values = {v["name"]: v.get("value", "") for v in container.get("env", ())}
            if host := values.get("KUBERNETES_SERVICE_HOST"):
                made["api_server"] = f"{host}:{values.get('KUBERNETES_SERVICE_PORT', '443')}"
    if operator:
        made["operator_replicas"] = operator["spec"].get("replicas", 1)
    return Choices(**made)


def _spec(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = obj.get("spec", {}).get("template", {}).get("spec", {})
    return spec


def _kind(obj: Object) -> Kind:
    return next(k for k in (*kinds.INSTALLED, NAMESPACE) if k.kind == obj["kind"])


def _said(obj: Object) -> Object:
    """What an object says, without what the API server and controllers note in it."""
    meta = {part: obj["metadata"].get(part) for part in ("labels", "annotations")}
    return {**{part: value for part, value in obj.items() if part != "status"}, "metadata": meta}


async def count_nodes(store: Store) -> int:
    """Nodes of the cluster, up to some."""
    pages: AsyncIterator[Any] = store.pages(NODE.only("metadata.name"))
    async for page in pages:
        return len(page.items)
    return 0
