"""The store fails in every way that a file can: traffic and policy go on, and so do pods when it is back."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.node.cni_node import Node, run, wait_for
from tests.node.faults import FULL, full_only
from tests.node.faults.inventory import await_equal, settled
from tests.node.faults.steady import Steady
from tests.node.faults.test_agent import await_next, kill_agent
from tests.node.labs import Lab, until

LOCKED, GONE, SLOW = (8.0 if FULL else 3.0), 2.0, 3.0
"""Seconds that each lasts; the store's own `lock_timeout` is 5."""
HOLD = """
import sqlite3, sys, time
path, hold, pause, seconds = sys.argv[1], *map(float, sys.argv[2:])
connection = sqlite3.connect(path, isolation_level=None, timeout=30)
end = time.monotonic() + seconds
while time.monotonic() < end:
    connection.execute("BEGIN IMMEDIATE")
    print("locked", flush=True)
    time.sleep(hold)
    connection.execute("ROLLBACK")
    time.sleep(pause)
"""


@contextmanager
def locked(lab: Lab, hold: float, pause: float, seconds: float) -> Iterator[None]:
    """Another process holds the store's write lock, `hold` seconds at a time, for so long; begins when it has it."""
    command = [sys.executable, "-c", HOLD, str(lab.place.store), str(hold), str(pause), str(seconds)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    try:
        yield
        holder.wait(seconds + 30)
    finally:
        holder.kill()
        holder.communicate()


def test_a_store_that_another_process_keeps_locked_delays_pods_and_nothing_else(
    lab: Lab, steady: Callable[..., Steady]
) -> None:
    before = settled(lab)
    with steady() as traffic:
        with locked(lab, LOCKED, 0, LOCKED):
            old = kill_agent(lab)  # the next one has to start with a store that takes no writes
        await_next(lab, old)
        lab.run("locked", "sleep", "inf", namespace="steady", labels=["app=friend"])
        lab.remove("locked", namespace="steady")
        figures = traffic.stop()
    print(figures)
    figures.check()
    await_equal(lab, before)


@full_only
def test_a_store_that_is_locked_again_and_again_is_only_slow(lab: Lab, steady: Callable[..., Steady]) -> None:
    before = settled(lab)
    with steady() as traffic:
        with locked(lab, 0.15, 0.03, SLOW):
            for number in range(2):
                pod = lab.run(f"slow-{number}", "sleep", "inf", namespace="steady", labels=["app=friend"])
                assert pod.connects(lab.pod("server", "steady").ipv4, 7300)
            lab.remove("slow-0", "slow-1", namespace="steady")
        figures = traffic.stop()
    print(figures)
    figures.check()
    await_equal(lab, before)


def test_a_store_that_is_gone_is_not_taken_for_an_empty_one(lab: Lab, steady: Callable[..., Steady]) -> None:
    before = settled(lab)
    store = lab.place.store
    paths = [store.with_name(store.name + suffix) for suffix in ("", "-wal", "-shm")]
    with steady() as traffic:
        old = kill_agent(lab)
        for path in paths:
            path.rename(path.with_name(f"away-{path.name}"))
        time.sleep(GONE)  # so long it is away, an agent's start included
        assert not store.exists(), "nobody has begun a new one"
        for path in paths:
            path.with_name(f"away-{path.name}").rename(path)
        await_next(lab, old)
        figures = traffic.stop()
    print(figures)
    figures.check()
    until(lambda: lab.status()["ready"], what="the lab is ready again")
    await_equal(lab, before)


def test_a_full_disk_under_the_store_leaves_pods_as_they_are_and_mends_itself() -> None:
    node = Node(octet=118, policy="real", settings={})
    disk = node.folder / "store"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk)
    try:
        text = node.config.read_text().replace(str(node.folder / "store.sqlite"), str(disk / "store.sqlite"))
        node.config.write_text(text)
        node.start()
        one, two = node.add(), node.add()
        filler = disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        pod = node.pod()
        outcome = node.call("ADD", pod)
        assert outcome.status == 0 or outcome.json["code"] == 11, outcome
        assert {e["container_id"] for e in node.endpoints()} >= {one.container_id, two.container_id}
        node.kill()
        node.start(wait=False)
        filler.unlink()
        node.await_ready()
        node.add(pod)
        assert len(node.endpoints()) == 3
        for added in (one, two, pod):
            node.delete(added)
        wait_for("every pair is gone", lambda: not node.links())
        with contextlib.closing(sqlite3.connect(disk / "store.sqlite")) as connection:
            assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
    finally:
        node.kill()
        run("umount", disk, check=False)
        node.close()
