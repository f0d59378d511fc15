"""Many readers, a reader that never reads, and more packets than anybody can follow."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
from ciliate_hubble.api.observer_pb2 import GetFlowsRequest, GetFlowsResponse
from ciliate_hubble.api.observer_pb2_grpc import ObserverStub

from tests.node.labs import Pod


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def flood(pod: Pod, address: str, ports: range, seconds: float) -> int:
    """Packets to ever other ports, so that each is a flow of its own, from inside a pod; how many."""

    def send() -> int:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sent, end = 0, time.monotonic() + seconds
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            while time.monotonic() < end:
                for port in ports:
                    sender.sendto(b"", (address, port))
                sent += len(ports)
        return sent

    return pod.inside(send)


class Stream:
    """One call of GetFlows that is read by a thread of its own, or by nobody."""

    def __init__(self, channel: grpc.Channel, request: GetFlowsRequest, read: bool = True) -> None:
        self._call: Any = ObserverStub(channel).GetFlows(request)
        self.flows: list[GetFlowsResponse] = []
        self.lost = 0
        self.ended = ""
        if read:
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for answer in self._call:
                if answer.HasField("flow"):
                    self.flows.append(answer)
                self.lost += answer.lost_events.num_events_lost
        except grpc.RpcError as error:
            self.ended = str(error)

    def cancel(self) -> None:
        """End the call."""
        self._call.cancel()


@contextmanager
def streams(server: str, requests: list[GetFlowsRequest], channels: int = 4) -> Iterator[list[Stream]]:
    """A stream for each request, over a few connections."""
    with ExitStack() as stack:
        known = [
            stack.enter_context(
                grpc.insecure_channel(server.replace("unix://", "unix:"), [("grpc.use_local_subchannel_pool", 1)])
            )
            for _ in range(channels)
        ]
        for channel in known:
            grpc.channel_ready_future(channel).result(10)
        made = [Stream(known[number % channels], request) for number, request in enumerate(requests)]
        try:
            yield made
        finally:
            with ThreadPoolExecutor(8) as threads:
                list(threads.map(Stream.cancel, made))
