"""A SYN flood from one pod: other pods' flows go on; what is not answered takes no room in the table of flows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ciliate_lab import namespaces

from tests.node.faults.inventory import await_equal, settled
from tests.node.faults.steady import NAMESPACE, Steady
from tests.node.labs import Lab, Pod, echo

SECONDS = 0.5
PORT, PORTS = 7600, 10


def entries(lab: Lab, name: str) -> int:
    """How many entries one of the node's maps has."""
    pin = lab.place.node(1).bpf_mount / "ciliate" / "maps" / name
    count = f'bpftool -j map dump pinned {pin} | grep -o \'"formatted"\\|"key"\' | wc -l'
    return int(subprocess.run(["sh", "-c", count], capture_output=True, check=True).stdout)


def flood(pod: Pod, target: Pod) -> subprocess.Popen[str]:
    """Begin a flood."""
    inside = ["nsenter", f"--net={namespaces.path(pod.netns)}"]
    shown = subprocess.run([*inside, "ip", "-j", "neigh"], capture_output=True, text=True, check=True)
    gateway = next(n["lladdr"] for n in json.loads(shown.stdout) if n["dst"] == "169.254.1.1")
    words = [sys.executable, str(Path(__file__).with_name("flood.py")), "eth0"]
    process = subprocess.Popen(
        [*inside, *words, pod.ipv4, target.ipv4, str(PORT), str(PORTS), str(SECONDS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(f"{gateway}\n")
    process.stdin.flush()
    return process


@pytest.mark.parametrize("answers", [False, True], ids=["unanswered", "answered"])
def test_a_syn_flood_from_one_pod_leaves_the_others_flows_alone(
    lab: Lab, steady: Callable[..., Steady], answers: bool
) -> None:
    before = settled(lab)
    flooder = lab.run("flooder", "sleep", "inf", namespace=NAMESPACE, labels=["app=flooder"])
    listening = [f"{PORT + number}/tcp" for number in range(PORTS)]
    command = echo(*listening) if answers else ("sleep", "inf")
    target = lab.run("target", *command, namespace=NAMESPACE, labels=["app=target"])
    if not answers:  # not even by a reset
        unanswered = ["ip", "route", "add", "blackhole", f"{flooder.ipv4}/32"]
        subprocess.run(["nsenter", f"--net={namespaces.path(target.netns)}", *unanswered], check=True)
    tracked = entries(lab, "conntrack")
    with steady() as traffic:
        said = flood(flooder, target).communicate(timeout=SECONDS + 30)[0].split()
        after = entries(lab, "conntrack")
        figures = traffic.stop()
    sent = int(said[-1])
    print(f"{sent} SYNs in {SECONDS:g} s; conntrack entries {tracked} before, {after} after; {figures}")
    assert sent > 10_000
    assert figures.lost == figures.replies_lost == figures.wrong == 0, str(figures)
    assert figures.broken == ()
    if not answers:
        figures.check()
        assert after - tracked < 2 * figures.connections + 100, "what nobody answers is not in the table"
    lab.remove("flooder", "target", namespace=NAMESPACE)
    await_equal(lab, before)
