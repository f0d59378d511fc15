"""Agent events of what tables say: mapped by meaning, as Hubble's numbers differ from the monitor's."""

from __future__ import annotations

import time
from collections.abc import Callable

from ciliate.model.base import pack_prefix
from ciliate.model.endpoint import Endpoint, EndpointPolicy
from ciliate.model.ipcache import IpcacheEntry
from ciliate.model.policy import PolicyRevision

from ciliate_hubble.api import flow_pb2 as pb
from ciliate_hubble.encoding.parts import policy_labels
from ciliate_hubble.names import Names

HOST_BITS = 128


class Notices:
    """Makes events. add: takes each, encoded."""

    def __init__(self, names: Names, add: Callable[[bytes], None]) -> None:
        self._names = names
        self._add = add

    def agent_started(self) -> None:
        """A new life of the agent."""
        event = pb.AgentEvent(type=pb.AGENT_STARTED)
        event.agent_start.time.FromNanoseconds(time.time_ns())
        self._tell(event)

    def endpoint(self, before: Endpoint | None, after: Endpoint | None) -> None:
        """A pod came, went, or took the place of another."""
        new = before is None or after is None or before.generation != after.generation
        for row, kind in ((before, pb.ENDPOINT_DELETED), (after, pb.ENDPOINT_CREATED)):
            if row is not None and new:
                update = pb.EndpointUpdateNotification(
                    id=row.id, labels=row.labels, pod_name=row.pod, namespace=row.namespace
                )
                self._tell(pb.AgentEvent(type=kind, endpoint_update=update))

    def endpoint_policy(self, before: EndpointPolicy | None, after: EndpointPolicy | None) -> None:
        """An endpoint's policy is realised anew."""
        if after is not None:
            done = pb.EndpointRegenNotification(id=after.id, labels=self._names.labels_of(after.identity))
            self._tell(pb.AgentEvent(type=pb.ENDPOINT_REGENERATE_SUCCESS, endpoint_regenerate=done))

    def policy(self, before: PolicyRevision | None, after: PolicyRevision | None) -> None:
        """A policy object is realised, or gone. How many rules it has, no table says."""
        row = after or before
        if row is not None:
            labels = policy_labels(row.kind, row.namespace, row.name, row.uid)
            update = pb.PolicyUpdateNotification(labels=labels, revision=row.revision)
            kind = pb.POLICY_UPDATED if after is not None else pb.POLICY_DELETED
            self._tell(pb.AgentEvent(type=kind, policy_update=update))

    def prefix(self, before: IpcacheEntry | None, after: IpcacheEntry | None) -> None:
        """A prefix has an identity, has another, or none any more."""
        row = after or before
        if row is None:
            return
        length, packed = pack_prefix(row.prefix)
        namespace, pod = self._names.pod_at(packed) if length == HOST_BITS else ("", "")
        update = pb.IPCacheNotification(
            cidr=row.prefix, identity=row.identity, host_ip=row.node, namespace=namespace, pod_name=pod
        )
        if before is not None and after is not None:
            update.old_identity.value = before.identity
            update.old_host_ip = before.node
        kind = pb.IPCACHE_UPSERTED if after is not None else pb.IPCACHE_DELETED
        self._tell(pb.AgentEvent(type=kind, ipcache_update=update))

    def _tell(self, event: pb.AgentEvent) -> None:
        self._add(event.SerializeToString(deterministic=True))
