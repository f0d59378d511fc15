"""What can happen to a running agent, and to what it keeps: traffic must not notice, and nothing may be lost."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ciliate.api.client import Client
from ciliate.kernel import bpffs

from tests.node.faults import full_only
from tests.node.faults.inventory import await_equal, inventory, settled
from tests.node.faults.steady import Steady
from tests.node.labs import Lab, until

STOPPED = 3.0
"""Seconds for which the agent stands still."""


@contextmanager
def agent_down(lab: Lab) -> Iterator[None]:
    """The agent is killed, and the next one starts when the block ends."""
    lab.signal("supervisor", signal.SIGSTOP)
    try:
        old = kill_agent(lab)
        yield
    finally:
        lab.signal("supervisor", signal.SIGCONT)
    await_next(lab, old)


def kill_agent(lab: Lab) -> int:
    """SIGKILL; the pid that it had."""
    return lab.signal("agent", signal.SIGKILL)


def await_next(lab: Lab, old: int) -> None:
    """Wait until another agent is ready."""
    until(lambda: (now := lab.process("agent"))["ready"] and now["pid"] != old, 30, "the next agent")


def rows(lab: Lab, table: str) -> list[dict[str, Any]]:
    """A table of the agent's."""
    with Client(lab.place.node(1).socket("agent")) as client:
        found: list[dict[str, Any]] = client.get(f"/tables/{table}")["rows"]
        return found


def log_of(lab: Lab) -> str:
    """What the agents have said."""
    return Path(lab.process("agent")["log"]).read_text()


def test_while_the_agent_stands_still_packets_go_on_and_a_new_pod_waits(
    lab: Lab, steady: Callable[..., Steady]
) -> None:
    before = settled(lab)
    with steady() as traffic, ThreadPoolExecutor(1) as pool:
        pid = lab.signal("agent", signal.SIGSTOP)
        try:
            adding = pool.submit(lab.run, "late", "sleep", "inf", namespace="steady", labels=["app=friend"])
            time.sleep(STOPPED)  # that it stands still for so long is the test
            assert not adding.done()
        finally:
            lab.signal("agent", signal.SIGCONT)
        pod = adding.result(30)
        assert pod.pings(pod.ipv4)
        lab.remove("late", namespace="steady")
        figures = traffic.stop()
    print(figures)
    figures.check()
    assert lab.process("agent")["pid"] == pid
    await_equal(lab, before)


def test_pins_that_somebody_deletes_are_put_back_and_serve_the_next_agent(
    lab: Lab, steady: Callable[..., Steady]
) -> None:
    root = lab.place.node(1).bpf_mount / "ciliate"
    before = settled(lab)
    with steady() as traffic:
        shutil.rmtree(root)
        until(lambda: root.exists() and before["pins"] == inventory(lab)["pins"], what="all pins are back")
        loaded = log_of(lab).count("programs=loaded")
        await_next(lab, kill_agent(lab))
        figures = traffic.stop()
    print(figures)
    figures.check()
    assert "pins were removed by somebody; put back" in log_of(lab)
    assert log_of(lab).count("programs=loaded") == loaded, "the next agent takes over what was pinned"
    await_equal(lab, before)


def test_a_bpffs_that_is_unmounted_is_named_and_filled_again(lab: Lab, steady: Callable[..., Steady]) -> None:
    mount = lab.place.node(1).bpf_mount
    before = settled(lab)
    with steady() as traffic:
        bpffs.unmount(mount)
        until(lambda: "no bpffs is mounted" in str(lab.process("agent")["reasons"]), what="the status names it")
        bpffs.mount(mount)
        until(lambda: lab.process("agent")["ready"], what="the agent is ready again")
        figures = traffic.stop()
    figures.check()
    await_equal(lab, before)


def test_pods_outlive_the_table_file_and_its_copy(lab: Lab, steady: Callable[..., Steady]) -> None:
    tables = lab.place.node(1).state_dir / "tables"
    lab.run("orphan", "sleep", "inf", namespace="steady", labels=["app=friend"])
    before = settled(lab)
    rules = {rule_set["id"] for rule_set in rows(lab, "rule_sets")}
    with steady() as traffic:
        with agent_down(lab):
            for path in tables.glob("agent.sqlite*"):
                path.unlink()
        figures = traffic.stop()
    print(figures)
    figures.check()
    await_equal(lab, before)
    assert "endpoints recovered" in log_of(lab)
    friend = until(lambda: [row for row in rows(lab, "endpoints") if row["pod"] == "friend"], 30, "its name")[0]
    assert friend["namespace"] == "steady" and "k8s:app=friend" in friend["labels"]
    assert not {r["id"] for r in rows(lab, "rule_sets") if r["id"] > 4} & rules, (
        "old flows' numbers mean what they meant"
    )
    pod = lab.run("after", "sleep", "inf", namespace="steady", labels=["app=friend"])
    assert not {*pod.addresses} & before["addresses in use"]
    generation = {row["pod"]: row["generation"] for row in rows(lab, "endpoints")}
    assert generation["after"] > 1_000_000 > max(g for name, g in generation.items() if name != "after")
    await_next(lab, kill_agent(lab))
    lab.remove("after", "orphan", namespace="steady")  # a recovered one is known by its devices' name
    left = {row["pod"] for row in rows(lab, "endpoints")}
    assert not {"after", "orphan"} & left
    settled(lab)


@pytest.mark.parametrize("damage", ["overwritten", pytest.param("deleted", marks=full_only)])
def test_a_table_file_damaged_while_the_agent_is_down_costs_nothing(
    lab: Lab, steady: Callable[..., Steady], damage: str
) -> None:
    tables = lab.place.node(1).state_dir / "tables"
    before = settled(lab)
    with steady() as traffic:
        with agent_down(lab):
            for suffix in ("", "-wal"):  # a sound log alone would mend the file
                path = tables / f"agent.sqlite{suffix}"
                path.write_bytes(b"not a table at all " * 1000) if damage == "overwritten" else path.unlink()
        figures = traffic.stop()
    print(figures)
    figures.check()
    assert "made anew from its copy" in log_of(lab)
    for path in tables.glob("*.corrupt-*"):
        path.unlink()  # it was kept for whoever wants to look
    await_equal(lab, before)
    pod = lab.run("after", "sleep", "inf", namespace="steady", labels=["app=friend"])
    assert not {*pod.addresses} & before["addresses in use"]
    lab.remove("after", namespace="steady")
