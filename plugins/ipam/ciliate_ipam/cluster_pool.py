"""The driver `cluster-pool`: the cluster's pools are cut into ranges of one size, and each node gets one a family."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing

from ciliate.context import Context
from ciliate.model.ipam import NotReadyError, PodRange
from ciliate.model.kinds import CILIUM_NODE
from ciliate.store import follow

from ciliate_ipam.config import IpamSection, cluster_pools, networks
from ciliate_ipam.host_networks import HostNetwork, is_within, overlaps, read_host_networks
from ciliate_ipam.ledger import READ, family_of, hand_out, operator_error, pod_cidrs

POOL = "cluster-pool"


class ClusterPool:
    """See `ciliate.model.ipam.IpamDriver`. The node's object, made by the plugin, holds its ranges."""

    operator_assigns = True

    def __init__(self, context: Context) -> None:
        """Raises ValueError on a setting that can't be."""
        self._context = context
        self._config: IpamSection = context.config
        self._pools = cluster_pools(self._config)
        self._allowed = networks(self._config.allow_overlap, "allow_overlap")
        self._waiting_for = ""

    async def ranges(self) -> AsyncIterator[list[PodRange]]:
        """See `IpamDriver.ranges`."""
        name = self._context.node.name
        changes = follow(self._context.store, CILIUM_NODE, fields={"metadata.name": name})
        async with aclosing(changes) as followed:  # type: ignore[type-var]
            async for change in followed:
                for node in change.upserts:
                    cidrs = pod_cidrs(node)
                    if self._lacks(cidrs):
                        await self._ask(name, operator_error(node))
                    else:
                        self._waiting_for = ""
                        yield [PodRange(cidr=cidr, pool=POOL) for cidr in cidrs if family_of(cidr) in self._pools]

    def _lacks(self, cidrs: list[str]) -> bool:
        return not set(self._pools) <= {family_of(cidr) for cidr in cidrs}

    async def _ask(self, name: str, error: str) -> None:
        """See to it that the node gets its ranges; its object's next change shows them. Raises NotReadyError."""
        if self._config.cluster_pool_assigned_by == "agent":
            host = await self._context.worker.call(read_host_networks)
            avoid = [network for network in host if not is_within(network, self._allowed)]
            networks = [known.network for known in avoid]
            answers = await hand_out(self._context.store, self._pools, {name}, networks, self._context.node.namespace)
            error = self._with_overlaps(answers.get(name, ""), avoid)
        self._waiting_for = error or f"the operator, to write spec.ipam.podCIDRs of ciliumnode {name}"
        self._context.health.not_ready(self._waiting_for, "ranges")
        if error:
            raise NotReadyError(error)

    def _with_overlaps(self, error: str, avoid: list[HostNetwork]) -> str:
        """An error with what of this machine lies in the pools, which may be why nothing in them is free."""
        pools = [str(pool) for cidrs, _ in self._pools.values() for pool in cidrs]
        found = {str(network) for pool in pools for network in overlaps(pool, avoid)}
        if not error or not found:
            return error
        return f"{error}. This machine's own {', '.join(sorted(found))} overlap with the pools and were left out"

    async def operate(self) -> None:
        """See `IpamDriver.operate`."""
        async with aclosing(follow(self._context.store, READ)) as followed:  # type: ignore[type-var]
            seen: dict[str, list[str]] = {}
            uids: dict[str, str] = {}
            started = False
            async for change in followed:
                cidrs = {node["metadata"]["name"]: pod_cidrs(node) for node in change.upserts}
                new = {name for name, held in cidrs.items() if self._lacks(held) or seen.get(name) != held}
                seen.update(cidrs)
                uids.update({node["metadata"]["name"]: node["metadata"]["uid"] for node in change.upserts})
                for key in change.deletes:
                    seen.pop(key.name, None)
                    uids.pop(key.name, None)
                if started and not new and not change.deletes:
                    continue
                started = True  # nodes that went away while no operator was there free their ranges now
                await self._hand_out(new, uids)

    async def _hand_out(self, names: set[str], uids: Mapping[str, str]) -> None:
        namespace = self._context.node.namespace
        answers = await hand_out(self._context.store, self._pools, names, namespace=namespace)
        for name, error in answers.items():
            if error:
                self._context.log.error("node gets no range", node=name, reason=error)
                kind = {"apiVersion": CILIUM_NODE.api_version, "kind": CILIUM_NODE.kind}
                about = {**kind, "metadata": {"name": name, "uid": uids.get(name, "")}}
                self._context.recorder.warn(about, "NoPodRange", error)

    def status(self) -> dict[str, str]:
        """See `IpamDriver.status`."""
        pools = {f"ipv{f}": f"{' '.join(map(str, cidrs))} by /{size}" for f, (cidrs, size) in self._pools.items()}
        return {**pools, "waiting for": self._waiting_for} if self._waiting_for else pools
