"""The plugin at work: what starts when, what waits for what, and what is adopted after a restart."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from ciliate.context import Context
from ciliate.kernel.probe import lacking
from ciliate.maps.ownership import MapOwnedError
from ciliate.model.conntrack import CONNTRACK_MAP, CONNTRACK_NEW_MAP, ENDPOINT_FLOWS_MAP
from ciliate.model.endpoint import ENDPOINT_IPS_MAP, ENDPOINT_POLICIES, ENDPOINTS_MAP, Endpoint
from ciliate.model.event import PACKETS_MAP
from ciliate.model.ipam import NODE_RANGES, Ipam
from ciliate.model.ipcache import claims_table
from ciliate.model.kinds import POD
from ciliate.store import ObjectKey

from ciliate_cni import claims, conflist, datapath, labels
from ciliate_cni.activity import Activity
from ciliate_cni.attach import Devices
from ciliate_cni.config import CniConfig
from ciliate_cni.conntrack import Collector
from ciliate_cni.datapath import Datapath
from ciliate_cni.deletequeue import DeleteQueue
from ciliate_cni.endpoint_objects import EndpointObjects
from ciliate_cni.endpoints import EndpointMaps, Endpoints
from ciliate_cni.flowlimits import FlowLimits
from ciliate_cni.host import HostDevice, HostPair, address_changes
from ciliate_cni.metrics import CniMetrics, packet_counts
from ciliate_cni.mover import Mover
from ciliate_cni.pods import Pods
from ciliate_cni.points import Points
from ciliate_cni.programs import REFUSED, Programs
from ciliate_cni.recovery import Recovery, named, pod_of
from ciliate_cni.removal import Removal
from ciliate_cni.server import CniServer
from ciliate_cni.tcxlinks import TcxLinks
from ciliate_cni.verbs import Verbs, claim_addresses, is_realised, refuse_frame

CLAIMS = claims_table("cni")
_PINS_INTERVAL = 1.0
_POINTS_INTERVAL = 0.25
_LIMITS_INTERVAL = 0.5
_PRESSED_OFTENER = 5  # times as often is collected while an endpoint is near its limit of flows


class Agent:
    """Everything that the plugin keeps in one process."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.config: CniConfig = context.config
        self.ipam = context.require(Ipam)  # type: ignore[type-abstract]
        self.socket = Path(self.config.socket) if self.config.socket else context.node.run_dir / "cni.sock"
        maps = EndpointMaps(
            context.maps.open(ENDPOINTS_MAP.name, writable=True),
            context.maps.open(ENDPOINT_IPS_MAP.name, writable=True),
        )
        self.endpoints = Endpoints(context.tables, maps)
        self.policies = context.tables.reader(ENDPOINT_POLICIES)
        self._ranges = context.tables.reader(NODE_RANGES)
        self._claims = context.tables.writer(CLAIMS)
        self._claiming = asyncio.Lock()
        self.pods = Pods(context.store, context.node.name, self._pod_changed, self._namespace_changed)
        self.points = Points(context.maps)
        flows = context.maps.open(ENDPOINT_FLOWS_MAP.name, writable=True).mmap(writable=True)
        room = context.maps.open(CONNTRACK_MAP.name).spec.max_entries
        self.flow_limits = FlowLimits(flows, room, self.config.conntrack_share)
        self.metrics = CniMetrics(context.metrics, self._states, self._packets, self.points.rows)
        self._activity = Activity()
        self._tcx_links = TcxLinks(context.node.bpffs / "links")
        self._mover: Mover | None = None

    def start(self) -> None:
        """Spawn the plugin's tasks."""
        self.context.health.not_ready("starting", "cni")
        self.context.spawn("pods", self.pods.follow_pods)
        self.context.spawn("namespaces", self.pods.follow_namespaces)
        self.context.spawn("network", self._run)
        if self.config.endpoint_objects:
            self.context.spawn("endpoint-objects", EndpointObjects(self.context).run)

    def stop(self) -> None:
        """The socket goes, so that the shim queues deletions at once; all that serves packets stays."""
        self.socket.unlink(missing_ok=True)

    def is_ready(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint's policy is in the kernel."""
        return is_realised(self.policies.get(endpoint.id), endpoint)

    def attached(self, endpoint: Endpoint) -> str:
        """By what an endpoint's packets come to the programs: "tcx" or "clsact"."""
        return "tcx" if self._mover is not None and self._mover.has_moved(endpoint.id) else "clsact"

    async def _run(self) -> None:
        """Take up the node, then serve. A failure anywhere starts all of it anew; nothing of it touches packets."""
        try:
            await self._take_up()
        except Exception as error:
            self.context.health.not_ready(f"{type(error).__name__}: {error}", "cni")
            if lacks := await self.context.worker.call(lacking, datapath.FEATURES, "the data path"):
                self.context.health.not_ready(lacks, "kernel")
            raise

    async def _take_up(self) -> None:
        families = await self._await_ranges()
        call = self.context.worker.call
        async with AsyncExitStack() as held:  # closed by the worker, behind what it may still be doing with them
            device = await call(HostDevice)
            held.push_async_callback(call, device.close)
            devices = await call(Devices)
            held.push_async_callback(call, devices.close)
            pair = await call(device.ensure)
            await call(device.route, pair, self.ipam.ranges())
            path = datapath.object_file(self.config.programs)
            programs = Programs(self.context, path, devices, self._tcx_links, pair, families)
            held.push_async_callback(programs.close)
            await programs.load()
            queue = DeleteQueue(self.socket.parent)
            await Recovery(self.context, self.endpoints, self.pods, queue, self.config.network).run(devices)
            if not programs.exchanging:
                await programs.attach(self.endpoints.all())
            await self._adopt(devices, None if programs.exchanging else programs.loaded)
            await programs.unblocked()
            if programs.exchanging:
                await self._claim(device)
                await programs.exchange(self.endpoints.all(), self.points)
            mover = await self._make_mover(programs.loaded)
            await self._serve(device, devices, pair, programs.loaded, mover)

    async def _await_ranges(self) -> set[int]:
        """Wait until this node has pod ranges; their families."""
        self.context.health.not_ready("this node has no pod range yet: does the operator run?", "cni")
        async for _ in self._ranges.changes():
            if ranges := self.ipam.ranges():
                return {r.family for r in ranges}
        raise RuntimeError("the table of ranges has ended")

    async def _adopt(self, devices: Devices, loaded: Datapath | None) -> None:
        """Take over the last life's endpoints as they are; repair what is wrong, forget what is gone.

        loaded: what they must run; None while they run an older set.
        """
        log = self.context.log
        known = self.endpoints.all()
        damages = await self.context.worker.call(devices.survey, known, loaded and loaded.from_pod)
        for damage in damages:
            log.warning(
                "endpoint", id=damage.endpoint, wrong=damage.what, done="forgotten" if damage.lost else "repaired"
            )
            endpoint = self.endpoints.get(damage.endpoint)
            if damage.lost and endpoint is not None:
                self.endpoints.delete(endpoint)
                self.endpoints.release([endpoint.id])
        held = self.ipam.attachments()
        kept = {f"{e.container_id}/{e.interface}": e for e in self.endpoints.all()}
        for attachment, endpoint in kept.items():
            if attachment not in held:
                claim_addresses(self.ipam, endpoint)
        for attachment in [a for a in self.ipam.attachments() if a not in kept]:
            self.ipam.release(attachment)
        removed = await self.context.worker.call(devices.purge_orphans, [e.id for e in self.endpoints.all()])
        self.endpoints.release_all()
        mended = self.endpoints.fill_maps()
        self.endpoints.complete()
        log.info("endpoints adopted", endpoints=len(kept), orphans_removed=removed, entries_mended=mended)

    async def _make_mover(self, loaded: Datapath) -> Mover:
        known, links = self.endpoints.all(), self._tcx_links
        moved = await self.context.worker.call(links.adopt, [e.id for e in known], loaded.from_pod)
        self._mover = Mover(self.config, self.context.worker, links, self.endpoints, self._activity, moved)
        return self._mover

    async def _serve(
        self, device: HostDevice, devices: Devices, pair: HostPair, loaded: Datapath, mover: Mover
    ) -> None:
        removal = Removal(self.context.worker, devices, self.endpoints, mover)
        mtu = await self.context.worker.call(device.mtu)
        verbs = Verbs(
            config=self.config,
            cluster=self.context.node.cluster,
            endpoints=self.endpoints,
            devices=devices,
            worker=self.context.worker,
            removal=removal,
            ipam=self.ipam,
            pods=self.pods,
            queue=DeleteQueue(self.socket.parent),
            policies=self.policies,
            program=lambda: loaded.from_pod,
            mtu=lambda: self.config.mtu or mtu,
            activity=self._activity,
            observe=self.metrics.call,
            not_ready=self._reasons,
            explain=self._explain,
        )
        if done := await verbs.delete_queued():
            self.context.log.info("deletions from while the agent was down", done=done)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(removal.run())
            tasks.create_task(mover.run(loaded.from_pod))
            tasks.create_task(CniServer(self.socket, verbs.handle, refuse_frame).run())
            tasks.create_task(self._keep_ranges(device, pair))
            tasks.create_task(self._keep_addresses(device, pair))
            tasks.create_task(self._collect(loaded))
            tasks.create_task(self._late_deletions(verbs))
            tasks.create_task(self._keep_pins(loaded))
            tasks.create_task(self._keep_points())
            if self.config.install:
                await asyncio.to_thread(conflist.install, self.config, self.socket)
            self.context.health.ready("cni")

    async def _keep_ranges(self, device: HostDevice, pair: HostPair) -> None:
        async for _ in self._ranges.changes():
            await self.context.worker.call(device.route, pair, self.ipam.ranges())
            await self._claim(device)

    async def _keep_addresses(self, device: HostDevice, pair: HostPair) -> None:
        """Fails when somebody deletes the node's device, so that it is made anew."""
        async for _ in address_changes():
            await self.context.worker.call(device.route, pair, self.ipam.ranges())
            await self._claim(device)

    async def _claim(self, device: HostDevice) -> None:
        async with self._claiming:
            addresses = await self.context.worker.call(device.addresses)
            with self.context.tables.commit():
                claims.write(self._claims, claims.claims(addresses, self.ipam.ranges()))

    async def _collect(self, loaded: Datapath) -> None:
        maps = self.context.maps
        tables = {spec.name: maps.open(spec.name, writable=True) for spec in (CONNTRACK_MAP, CONNTRACK_NEW_MAP)}
        keys = maps.open("collect_keys", writable=True).mmap(writable=True)
        endpoints = maps.open(ENDPOINTS_MAP.name).mmap()
        collector = Collector(loaded.programs, tables, keys, endpoints, self.flow_limits)
        clock, interval = asyncio.get_running_loop().time, self.config.conntrack_interval
        last = clock()
        while True:
            await asyncio.sleep(min(_LIMITS_INTERVAL, interval))
            for number in self.flow_limits.update():
                self._tell_limited(number)
            if clock() - last >= (interval / _PRESSED_OFTENER if self.flow_limits.pressed else interval):
                self.metrics.collected(await asyncio.to_thread(collector.collect))
                last = clock()

    def _tell_limited(self, number: int) -> None:
        flows, limit = self.flow_limits.of(number)
        endpoint = self.endpoints.get(number)
        pod = f"{endpoint.namespace}/{endpoint.pod}" if endpoint is not None else ""
        self.context.log.warning("too many flows: new ones are dropped", id=number, pod=pod, flows=flows, limit=limit)

    async def _keep_pins(self, loaded: Datapath) -> None:
        """Somebody may delete the bpffs folder, or unmount it: packets go on, but only for as long as this process."""
        while True:
            try:
                if lost := loaded.repin(self.context.maps, self.context.node.bpffs):
                    self.context.log.warning("pins were removed by somebody; put back", pins=lost)
                self.context.health.ready("pins")
            except (OSError, MapOwnedError) as error:
                self.context.health.not_ready(f"pins were removed by somebody and can't be put back: {error}", "pins")
            await asyncio.sleep(_PINS_INTERVAL)

    async def _keep_points(self) -> None:
        while True:
            await self.context.worker.call(self.points.look)
            await asyncio.sleep(_POINTS_INTERVAL)

    async def _late_deletions(self, verbs: Verbs) -> None:
        """A shim that gave up on us just before we answered has written its deletion down after we had looked."""
        while True:
            await asyncio.sleep(5)
            await verbs.delete_queued()

    def _pod_changed(self, key: ObjectKey) -> None:
        self._name_recovered(key)
        self._refresh([e for e in self.endpoints.all() if (e.namespace, e.pod) == tuple(key)])

    def _name_recovered(self, key: ObjectKey) -> None:
        """A recovered endpoint whose Pod was not known at the start."""
        if (pod := self.pods.pods.get(key)) is None:
            return
        for endpoint in [e for e in self.endpoints.nameless() if not e.pod]:
            if pod_of({endpoint.ipv4, endpoint.ipv6}, [pod]) is not None:
                self.endpoints.put(named(endpoint, pod, self.pods.namespaces, self.context.node.cluster))

    def _namespace_changed(self, key: ObjectKey) -> None:
        self._refresh([e for e in self.endpoints.all() if e.namespace == key.name])

    def _refresh(self, endpoints: list[Endpoint]) -> None:
        """Bring rows up to date with their Pod and Namespace objects."""
        changed = []
        for endpoint in endpoints:
            pod = self.pods.known(ObjectKey(endpoint.namespace, endpoint.pod), endpoint.pod_uid)
            if pod is None:
                continue
            namespace = self.pods.namespaces.get(endpoint.namespace)
            fresh = labels.applied(endpoint, pod, namespace, self.context.node.cluster)
            if fresh != endpoint:
                changed.append(fresh)
        if changed:
            self.endpoints.put_all(changed)

    def _reasons(self) -> list[str]:
        """Why a new pod would not be connected now."""
        reasons = [r for r in self.context.health.reasons if not r.startswith(f"{REFUSED}:")]
        if self.policies.stale:
            reasons = [*reasons, "nobody writes the table endpoint_policies: is the plugin policy enabled and healthy?"]
        return reasons

    def _explain(self, key: ObjectKey, sentence: str) -> None:
        """Say in an Event why a pod is not connected, if it is a pod of the cluster."""
        pod = self.pods.known(key, "")
        if pod is not None:
            metadata = {"name": key.name, "namespace": key.namespace, "uid": pod["metadata"].get("uid", "")}
            about = {"apiVersion": POD.api_version, "kind": POD.kind, "metadata": metadata}
            self.context.recorder.warn(about, "PodNotConnected", sentence)

    def _states(self) -> dict[str, int]:
        """Endpoints by Cilium's names of their states."""
        counts = {"ready": 0, "waiting-for-identity": 0}
        for endpoint in self.endpoints.all():
            counts["ready" if self.is_ready(endpoint) else "waiting-for-identity"] += 1
        return counts

    def _packets(self) -> list[tuple[int, int, int, int]]:
        return packet_counts(self.context.maps.open(PACKETS_MAP.name).items())
