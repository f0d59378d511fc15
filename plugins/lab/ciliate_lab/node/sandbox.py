"""What a pod is made of on this machine: its network namespace, its CNI attachment, its cgroup and its process."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from ciliate_lab import cgroups, namespaces
from ciliate_lab.node import cni, container
from ciliate_lab.node.record import PodRecord, PodRecords, alive, reap, start_time
from ciliate_lab.place import LabNode

GRACE = 2.0
"""Seconds that a command gets between SIGTERM and SIGKILL at most; the manifest may ask for less."""


class Sandbox:
    """Makes, watches and removes what one record names. Every step may be repeated."""

    def __init__(self, node: LabNode, records: PodRecords, record: PodRecord, on_end: Callable[[], None]) -> None:
        self._node = node
        self._records = records
        self._record = record
        self._on_end = on_end
        if alive(record):  # started by a former kubelet
            self._follow_process()

    @property
    def _group(self) -> Path:
        return Path(self._record.cgroup)

    async def attach(self) -> None:
        """Make the namespace and have the CNI plugin connect it. Raises CniError, OSError."""
        if not namespaces.path(self._record.netns).exists():
            namespaces.create(self._record.netns)
        network = cni.load_network(self._node.conf_dir)
        try:
            self._record.result = await cni.add(network, self._node.bin_dir, self._attachment())
        except cni.CniError as error:
            if error.code != cni.TRY_AGAIN:
                await self.detach()
            raise
        self._records.save(self._record)

    async def detach(self) -> None:
        """Have the CNI plugin disconnect the namespace, and remove it. Raises CniError."""
        network = cni.load_network(self._node.conf_dir)
        await cni.delete(network, self._node.bin_dir, self._attachment(), self._record.result)
        self._record.result = None
        namespaces.delete(self._record.netns)
        self._records.save(self._record)

    async def start(self, wanted: container.Container) -> None:
        """Start the command. Raises OSError."""
        await self.kill()  # what another kubelet started and died before it had written down
        uid, files = self._record.uid, self._records
        paths = (files.exit_file(uid), files.begun_file(uid), files.hosts_file(uid))
        self._record.pid = container.start(wanted, self._record, *paths)
        self._record.pid_start = start_time(self._record.pid)
        self._record.started = time.time()
        self._records.save(self._record)
        self._follow_process()

    async def note_end(self) -> None:
        """Write down how the command ended, once."""
        if not self._record.pid_start:
            return
        reaped = reap(self._record.pid)
        await self.kill()
        self._record.last_code = self._exit_code(reaped)
        self._record.pid_start = 0
        self._records.save(self._record)

    async def stop(self, grace: float) -> None:
        """Ask all processes to end, and after `grace` seconds make them."""
        if grace > 0 and cgroups.populated(self._group):
            cgroups.signal_all(self._group, signal.SIGTERM)
            loop = asyncio.get_running_loop()
            deadline = loop.time() + min(grace, GRACE)
            while cgroups.populated(self._group) and loop.time() < deadline:
                await asyncio.sleep(0.01)
        await self.kill()

    async def kill(self) -> None:
        """End all processes now."""
        if cgroups.populated(self._group):
            await asyncio.to_thread(cgroups.kill, self._group)
        if self._record.pid:
            reap(self._record.pid)

    async def remove(self) -> None:
        """Remove what is left when nothing runs and nothing is connected."""
        await asyncio.to_thread(cgroups.remove, self._group)
        self._records.remove(self._record.uid)

    def _attachment(self) -> cni.Attachment:
        mine = self._record
        args = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": mine.namespace,
            "K8S_POD_NAME": mine.name,
            "K8S_POD_INFRA_CONTAINER_ID": mine.container_id,
            "K8S_POD_UID": mine.uid,
        }
        joined = ";".join(f"{key}={value}" for key, value in args.items())
        return cni.Attachment(mine.container_id, str(namespaces.path(mine.netns)), "eth0", joined)

    def _follow_process(self) -> None:
        try:
            handle = os.pidfd_open(self._record.pid)
        except ProcessLookupError:
            self._on_end()
            return
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(handle)
            os.close(handle)
            self._on_end()

        loop.add_reader(handle, ended)

    def _exit_code(self, reaped: int | None) -> int:
        try:
            return int(self._records.exit_file(self._record.uid).read_text())
        except (OSError, ValueError):
            return 137 if reaped is None else reaped  # killed, together with what would have told
