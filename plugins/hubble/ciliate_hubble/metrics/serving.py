"""Metrics of flows in a process: made, registered, served; and series of pods that are gone, dropped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from ciliate.context import Context

from ciliate_hubble.config import HubbleConfig
from ciliate_hubble.losses import Losses
from ciliate_hubble.metrics.collector import FlowMetrics
from ciliate_hubble.metrics.options import parse_metrics
from ciliate_hubble.tables import FlowTables

GONE_AFTER = 60.0
"""Seconds that the series of a deleted pod are still shown."""
LOOK = 10.0
Pods = set[tuple[str, str]]


def serve_metrics(
    context: Context, tables: FlowTables, losses: Losses, gone: Callable[[Pods], Pods]
) -> FlowMetrics | None:
    """The metrics that the configuration lists; None: it lists none. gone: which of some pods there are no more."""
    config: HubbleConfig = context.config
    if not config.metrics:
        return None
    metrics = FlowMetrics(parse_metrics(config.metrics), tables, lambda: losses.totals)
    context.metrics.registry.register(metrics)
    if config.metrics_server:
        context.spawn("metrics server", partial(_serve, context, config.metrics_server))
    context.spawn("metrics of gone pods", partial(_forget, metrics, gone))
    return metrics


async def _serve(context: Context, listen: str) -> None:
    """Begin to serve; flows do not wait for a port that another has: it is tried again, and the health says why."""
    while True:
        try:
            context.metrics.serve(listen)
            context.health.ready("metrics")
            return
        except OSError as error:
            context.health.not_ready(f"hubble.metrics_server: {listen}: {error.strerror or error}", "metrics")
        await asyncio.sleep(LOOK)


async def _forget(metrics: FlowMetrics, gone: Callable[[Pods], Pods]) -> None:
    """Drop series of pods that have been gone for a while, for ever."""
    since: dict[tuple[str, str], float] = {}
    while True:
        await asyncio.sleep(LOOK)
        forget_gone(metrics, gone, since, time.monotonic())


def forget_gone(
    metrics: FlowMetrics, gone: Callable[[Pods], Pods], since: dict[tuple[str, str], float], now: float
) -> None:
    """One look. since: from when on each pod has been seen to be gone."""
    missing = gone(metrics.pods())
    for pod in set(since) - missing:
        del since[pod]
    for pod in missing:
        since.setdefault(pod, now)
    if due := {pod for pod, first in since.items() if now - first >= GONE_AFTER}:
        metrics.forget_pods(due)
        for pod in due:
            del since[pod]
