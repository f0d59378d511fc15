"""The verbs of CNI: what ADD, DEL, CHECK, GC and STATUS do with endpoints."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from ciliate.kernel.errors import KernelError
from ciliate.model.endpoint import Endpoint, EndpointPolicy
from ciliate.model.ipam import Allocation, ExhaustedError, Ipam, IpamError, NotReadyError
from ciliate.programs.program import Program
from ciliate.store import ObjectKey
from ciliate.tables.file import TableFileError
from ciliate.tables.table import TableReader
from ciliate.worker import Worker

from ciliate_cni import attach, labels, namespaces, result
from ciliate_cni.activity import Activity
from ciliate_cni.attach import Devices
from ciliate_cni.config import CniConfig
from ciliate_cni.deletequeue import DeleteQueue
from ciliate_cni.endpoints import Endpoints
from ciliate_cni.errors import CniError, Code
from ciliate_cni.locks import NamedLocks
from ciliate_cni.netconf import VERSIONS, Call, parse_call, version_of
from ciliate_cni.pods import Pods
from ciliate_cni.removal import Removal
from ciliate_cni.server import Answer, Caller
from ciliate_cni.wire import Request, WireError

log = structlog.get_logger("cni")


@dataclass
class Verbs:
    """Carries out calls. Calls for one attachment go one after another."""

    config: CniConfig
    cluster: str
    endpoints: Endpoints
    devices: Devices
    worker: Worker
    removal: Removal
    ipam: Ipam
    pods: Pods
    queue: DeleteQueue
    policies: TableReader[EndpointPolicy]
    program: Callable[[], Program]
    mtu: Callable[[], int]
    activity: Activity = field(default_factory=Activity)
    observe: Callable[[str, str, float], None] = lambda verb, outcome, seconds: None
    not_ready: Callable[[], list[str]] = list
    explain: Callable[[ObjectKey, str], None] = lambda pod, sentence: None  # why a pod is not connected
    _alone: NamedLocks = field(default_factory=NamedLocks)

    async def handle(self, request: Request, caller: Caller) -> Answer:
        """Answer one call of the shim, whatever it is."""
        began, verb, outcome = time.perf_counter(), "unknown", "success"
        try:
            call = parse_call(request)
            verb = call.command
            with self.activity.call() if verb in ("ADD", "DEL") else nullcontext():
                answer = await self._carry_out(call, request, caller)
        except CniError as error:
            outcome = error.code.name.lower()
            return refusal(version_of(request.config), error)
        except KernelError as error:
            outcome = "kernel"
            return refusal(version_of(request.config), CniError(Code.KERNEL, str(error)))
        except (IpamError, TableFileError) as error:  # not written down, as on a full disk: so it did not happen
            outcome = "storage"
            return refusal(version_of(request.config), CniError(Code.TRY_AGAIN, str(error)))
        except Exception as error:
            outcome = "internal"
            log.exception("a CNI call failed", verb=verb)
            wrapped = CniError(Code.IO, f"{type(error).__name__}: {error}", "an error that the agent did not expect")
            return refusal(version_of(request.config), wrapped)
        finally:
            self.observe(verb, outcome, time.perf_counter() - began)
        return Answer(0, msgspec.json.encode(answer) if answer is not None else b"")

    async def delete_queued(self) -> int:
        """Carry out the deletions that the shim wrote down; how many. One that fails stays for the next start."""
        done = 0
        for _, request in self.queue.pending():
            try:
                await self._delete(parse_call(request))
            except CniError as error:
                if error.code in (Code.IO, Code.KERNEL, Code.TRY_AGAIN):
                    continue
            self.queue.settle(*request.attachment)
            done += 1
        return done

    async def remove(self, endpoint: Endpoint) -> None:
        """Take an endpoint away: when this returns its row, its entries in the kernel and its addresses are gone."""
        self.endpoints.delete(endpoint)
        self.removal.add(endpoint)
        self.ipam.release(f"{endpoint.container_id}/{endpoint.interface}")

    async def _carry_out(self, call: Call, request: Request, caller: Caller) -> dict[str, Any] | None:
        if call.command == "ADD":
            try:
                return await self._add(call, request, caller)
            except (CniError, KernelError, IpamError, TableFileError) as error:
                if not caller.gone:
                    pod = ObjectKey(call.args.get("K8S_POD_NAMESPACE", ""), call.args.get("K8S_POD_NAME", ""))
                    self.explain(pod, str(error))
                raise
        if call.command == "DEL":
            await self._delete(call)
            self.queue.settle(*request.attachment)
        elif call.command == "CHECK":
            await self._check(call, request, caller)
        elif call.command == "GC":
            await self._collect(call)
        elif reasons := self.not_ready():
            raise CniError(Code.UNAVAILABLE, "the node is not ready for new pods", "; ".join(reasons))
        return None

    async def _add(self, call: Call, request: Request, caller: Caller) -> dict[str, Any]:
        netns = namespaces.check_pod_namespace(caller.netns, call.netns, request.netns_errno)
        result.refuse_taken_interface(call.conf.prev_result, call.interface)
        async with self._alone.hold(call.attachment):
            if caller.gone:
                raise CniError(Code.TRY_AGAIN, "the caller has gone")
            if self.queue.holds(*request.attachment):
                await self._delete_alone(call)
                self.queue.settle(*request.attachment)
            known = self._endpoint_of(call)
            if known is not None:
                wrong: list[str] = await self.worker.call(self.devices.inspect, known, netns, self.program())
                if wrong:
                    await self.remove(known)
                    known = None
            endpoint = known or await self._create(call, netns)
            if caller.gone and known is None:
                await self.remove(endpoint)
                raise CniError(Code.TRY_AGAIN, "the caller has gone")
            if known is not None:
                await self._realised(known)
            return result.result_of(endpoint, call.conf.cni_version, call.netns, call.conf.prev_result)

    def _endpoint_of(self, call: Call) -> Endpoint | None:
        known = self.endpoints.of(call.container_id, call.interface)
        return known or self._recognise(call.container_id, call.interface)

    def _recognise(self, container_id: str, interface: str) -> Endpoint | None:
        """A recovered endpoint's container is known as soon as a call names it."""
        found = self.endpoints.recognise(container_id, interface)
        if found is not None:
            claim_addresses(self.ipam, found)
        return found

    async def _create(self, call: Call, netns: int) -> Endpoint:
        """A new endpoint, whole or not at all. Its devices are made while its row is written and policy works on it."""
        endpoint = await self._plan(call)
        attaching = asyncio.create_task(self.worker.call(self.devices.attach, endpoint, netns, self.program()))
        await asyncio.sleep(0)  # the worker has it now
        try:
            try:
                self.endpoints.put(endpoint)
            finally:
                await attaching
            await self._realised(endpoint)
        except Exception:
            await self.remove(endpoint)
            raise
        # Labels may have changed meanwhile: the row, not the plan, is what the endpoint is.
        return self.endpoints.get(endpoint.id) or endpoint

    async def _plan(self, call: Call) -> Endpoint:
        """The row of a new endpoint, with its addresses allocated."""
        namespace = call.args.get("K8S_POD_NAMESPACE", "")
        name = call.args.get("K8S_POD_NAME", "")
        uid = call.args.get("K8S_POD_UID", "")
        pod = None
        if namespace and name:
            pod = await self.pods.find(ObjectKey(namespace, name), uid, self.config.pod_timeout)
        namespace = namespace or self.config.default_namespace
        number, generation = self.endpoints.next()
        allocation = self._allocate(f"{namespace}/{name or call.container_id}", call.attachment)
        return Endpoint(
            id=number,
            generation=generation,
            container_id=call.container_id,
            interface=call.interface,
            netns=call.netns,
            namespace=namespace,
            pod=name,
            pod_uid=uid or (pod["metadata"].get("uid", "") if pod is not None else ""),
            host_interface=attach.host_name(call.container_id, call.interface, generation),
            ipv4=allocation.ipv4,
            ipv6=allocation.ipv6,
            mac=attach.random_mac(),
            host_mac=attach.random_mac(),
            labels=() if pod is None else labels.labels_of(pod, self.pods.namespaces.get(namespace), self.cluster),
            named_ports=() if pod is None else labels.named_ports_of(pod),
            mtu=call.conf.mtu or self.mtu(),
            network=call.conf.name,
        )

    def _allocate(self, owner: str, attachment: str) -> Any:
        try:
            allocation = self.ipam.allocate(owner, attachment)
        except NotReadyError as error:
            raise CniError(Code.TRY_AGAIN, str(error)) from error
        except ExhaustedError as error:
            raise CniError(Code.ADDRESSES, str(error)) from error
        if allocation.ipv4 is None and allocation.ipv6 is None:
            raise CniError(Code.ADDRESSES, "IPAM gave no address of either family")
        return allocation

    async def _realised(self, endpoint: Endpoint) -> None:
        """Wait until policy is in the kernel for this endpoint. Raises CniError."""
        try:
            await self.policies.until(
                endpoint.id, lambda row: is_realised(row, endpoint), timeout=self.config.policy_timeout
            )
        except TimeoutError as error:
            raise CniError(
                Code.TRY_AGAIN,
                f"the policy of endpoint {endpoint.id} was not in the kernel within {self.config.policy_timeout:g} s",
                "is the plugin policy enabled and ready? `ciliate status` says",
            ) from error

    async def _delete(self, call: Call) -> None:
        async with self._alone.hold(call.attachment):
            await self._delete_alone(call)

    async def _delete_alone(self, call: Call) -> None:
        """An attachment that nobody knows is deleted already."""
        endpoint = self._endpoint_of(call)
        if endpoint is not None:
            await self.remove(endpoint)
        else:
            self.ipam.release(call.attachment)

    async def _check(self, call: Call, request: Request, caller: Caller) -> None:
        netns = namespaces.check_pod_namespace(caller.netns, call.netns, request.netns_errno)
        async with self._alone.hold(call.attachment):
            endpoint = self._endpoint_of(call)
            if endpoint is None:
                raise CniError(
                    Code.UNKNOWN_CONTAINER,
                    f"container {call.container_id} has no interface {call.interface} that Ciliate made",
                )
            wrong = [result.mismatch(endpoint, call.conf.prev_result)]
            wrong += await self.worker.call(self.devices.inspect, endpoint, netns, self.program())
            if any(wrong):
                raise CniError(
                    Code.MISMATCH,
                    f"endpoint {endpoint.id} is not as ADD made it",
                    "; ".join(sentence for sentence in wrong if sentence),
                )

    async def _collect(self, call: Call) -> None:
        """Delete this network's endpoints that the runtime doesn't have."""
        if call.conf.valid_attachments is None:
            raise CniError(Code.CONFIGURATION, "GC needs cni.dev/valid-attachments: the attachments that are to stay")
        valid = {(a.container_id, a.ifname) for a in call.conf.valid_attachments}
        for attachment in valid:
            self._recognise(*attachment)
        for endpoint in self.endpoints.all():
            attachment = (endpoint.container_id, endpoint.interface)
            if endpoint.network == call.conf.name and attachment not in valid:
                async with self._alone.hold("/".join(attachment)):
                    current = self.endpoints.of(*attachment)
                    if current is not None and current.generation == endpoint.generation:
                        await self.remove(current)


def claim_addresses(ipam: Ipam, endpoint: Endpoint) -> None:
    """Have IPAM know what an endpoint has. Raises IpamError."""
    owner = f"{endpoint.namespace}/{endpoint.pod or endpoint.container_id}"
    attachment = f"{endpoint.container_id}/{endpoint.interface}"
    ipam.claim(owner, attachment, Allocation(ipv4=endpoint.ipv4, ipv6=endpoint.ipv6))


def is_realised(row: EndpointPolicy | None, endpoint: Endpoint) -> bool:
    """Whether a row of `endpoint_policies` says that this life of an endpoint is judged by decided policies."""
    return row is not None and row.generation == endpoint.generation and bool(row.ingress_policy and row.egress_policy)


def refusal(version: str, error: CniError) -> Answer:
    """An error in CNI's shape."""
    body: dict[str, Any] = {"cniVersion": version, "code": int(error.code), "msg": error.msg, "details": error.details}
    if error.code is Code.INCOMPATIBLE_VERSION:
        body["supportedVersions"] = VERSIONS
    return Answer(1, msgspec.json.encode(body))


def refuse_frame(error: WireError) -> Answer:
    """The answer to bytes that are no call."""
    return refusal(VERSIONS[-1], CniError(Code.DECODING, f"not a call of ciliate-cni: {error}"))
