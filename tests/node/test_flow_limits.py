"""A flood that is answered: the pod that sends it comes to its limit of flows, and nobody else notices."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from ciliate.model.conntrack import CONNTRACK_MAP
from ciliate.model.reasons import DropReason

from tests.node.faults.stream import Stream
from tests.node.faults.test_flood import PORT, PORTS, entries, flood
from tests.node.labs import Lab, Pod, echo, until

SHARE = 0.004
LIMIT = int(SHARE * CONNTRACK_MAP.max_entries)


def endpoint(lab: Lab, pod: Pod) -> Any:
    """What `ciliate-dbg endpoint get` says of a pod."""
    return lab.dbg("endpoint", "get", pod.ipv4)


def dropped(lab: Lab) -> int:
    """Packets that were dropped because a pod had too many flows."""
    counts = lab.dbg("bpf", "metrics", "list")
    return sum(count["packets"] for count in counts if count["reason"] == DropReason.CONNTRACK_LIMIT.text)


def test_an_answered_flood_is_stopped_at_the_pods_limit(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab("--set", f"cni.conntrack_share={SHARE}", "--set", "cni.conntrack_interval=1")
    listening = [f"{PORT + number}/tcp" for number in range(PORTS)]
    target = lab.run("target", *echo(*listening), ports=listening)
    flooder, other = (lab.run(name, "sleep", "inf") for name in ("flooder", "other"))
    streams = [Stream(pod.netns, address, PORT) for pod in (flooder, other) for address in target.addresses]
    for stream in streams:
        stream.start()
    flooding = flood(flooder, target)
    until(lambda: dropped(lab) > 1000, what="the limit")
    assert other.reaches(target, PORT)
    assert target.pings(other.ipv4) and target.pings(other.ipv6)
    flooding.communicate(timeout=30)
    shown = endpoint(lab, flooder)
    assert shown["flow_limit"] == LIMIT
    assert LIMIT / 2 < shown["flows"] <= LIMIT + len(os.sched_getaffinity(0))
    assert entries(lab, "conntrack") < LIMIT + 100
    assert not flooder.reaches(target, PORT)
    assert not flooder.pings(target.ipv4) and not flooder.pings(target.ipv6)
    pid = lab.process("agent")["pid"]
    os.kill(pid, signal.SIGKILL)
    assert not flooder.reaches(target, PORT), "it holds without an agent"
    assert other.reaches(target, PORT)
    until(lambda: lab.process("agent")["pid"] not in (0, pid) and lab.status()["ready"], 30, "a new agent")
    until(lambda: flooder.reaches(target, PORT), 30, "the flood's flows to be over and collected")
    assert endpoint(lab, flooder)["flows"] < LIMIT / 2
    for stream in streams:
        stream.stop()
        assert (stream.broken, stream.messages > 0) == ("", True)
