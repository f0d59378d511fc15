"""Client channels: opening one, whether the other side still answers, and why a call failed."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ciliate_hubble.certificates.credentials import client_credentials
from ciliate_hubble.certificates.material import Material

OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection, with the certificates of now
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_WORDS = re.compile(r"^failed to connect to all addresses; last error: (?:[A-Z]+: )?")


def open_channel(target: str, material: Material | None, server_name: str = "") -> grpc.aio.Channel:
    """A channel to host:port or unix:///PATH; with material, by TLS, and the server must prove that name."""
    if material is None:
        return grpc.aio.insecure_channel(target, options=OPTIONS)
    options = (*OPTIONS, ("grpc.ssl_target_name_override", server_name))
    return grpc.aio.secure_channel(target, client_credentials(material), options=options)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Why a call failed, short."""
    details = _WORDS.sub("", (error.details() or "").strip())
    return f"{error.code().name}: {details}" if details else error.code().name


@dataclass(frozen=True)
class Checks:
    """How a server is asked whether it lives, in seconds."""

    first: float = 5.0  # in which a new connection must answer
    interval: float = 5.0
    timeout: float = 2.0


async def check(channel: grpc.aio.Channel, timeout: float) -> str:
    """Why a server does not answer; empty if it does. One without a health service is taken to live."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    try:
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"does not answer within {timeout:g} s"
        if error.code() not in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND):
            return reason_of(error)
    return ""


async def until_lost(channel: grpc.aio.Channel, checks: Checks) -> str:
    """Wait until a server that has answered does so no more, or its connection breaks; why."""
    ready = grpc.ChannelConnectivity.READY
    breaking = asyncio.create_task(channel.wait_for_state_change(ready))
    try:
        while channel.get_state() is ready:
            await asyncio.wait({breaking}, timeout=checks.interval)
            if not breaking.done() and (reason := await check(channel, checks.timeout)):
                return reason
            if breaking.done():
                break
        return "the connection broke"
    finally:
        breaking.cancel()
