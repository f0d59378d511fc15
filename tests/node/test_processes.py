"""`ciliate node`: processes placed, forked, started anew, isolated, adopted and stopped; tables cross between them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ciliate.api.client import Client, NodeClient, NotServedError
from ciliate.api.routes import ApiError
from ciliate_node.cgroups import unified
from ciliate_node.placement import Plan
from ciliate_node.states import NodeState, ProcessState, read_state, start_ticks
from ciliate_node.supervisor import Order

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="no root: processes of a node run as root")

MODULE = '''
import asyncio
from ciliate.api.routes import Route
from ciliate.hookspecs import hookimpl
from ciliate.model.base import Row
from ciliate.plugin import Plugin, Section
from ciliate.tables.spec import Durability, TableSpec

class Pet(Row, frozen=True):
    name: str
    meals: int = 0

PETS = TableSpec("pets", Pet, key=("name",), durability=Durability.COMMIT, doc="Pets.")

class Kitchen(Plugin):
    """Feeds rex for ever."""
    name = "kitchen"
    essential = True
    @hookimpl
    def ciliate_tables(self): return [PETS]
    @hookimpl
    def ciliate_setup(self, context):
        writer = context.tables.writer(PETS)
        async def feed():
            writer.complete()
            while True:
                meals = writer.rows["rex"].meals if "rex" in writer.rows else 0
                writer.put(Pet(name="rex", meals=meals + 1))
                await asyncio.sleep(0.01)
        context.spawn("feed", feed)

class Waiter(Plugin):
    name = "waiter"
    needs_same_process = ("kitchen",)

class Watcher(Plugin):
    """Shows rex as another process sees it."""
    name = "watcher"
    roles = ("watch",)
    @hookimpl
    def ciliate_setup(self, context):
        self.pets = context.tables.reader(PETS)
        self.role = context.node.role
    @hookimpl
    def ciliate_routes(self):
        async def rex(request):
            row = self.pets.get("rex")
            return {"meals": row.meals if row else 0, "stale": self.pets.stale, "complete": self.pets.complete}
        return [Route("GET", "/rex", rex, "Rex.")]

class Stranger(Plugin):
    name = "stranger"
    roles = ("agent",)
    @hookimpl
    def ciliate_setup(self, context):
        self.role = context.node.role
    @hookimpl
    def ciliate_routes(self):
        async def eat(request):
            self.food = bytearray(b"x") * (300 << 20)
            return len(self.food)
        async def role(request): return self.role
        return [Route("POST", "/eat", eat, "Eat."), Route("GET", "/role", role, "Role.")]

class Crasher(Plugin):
    name = "crasher"
    @hookimpl
    def ciliate_setup(self, context): raise SystemExit(3)
'''
NAMES = ("kitchen", "waiter", "watcher", "stranger", "crasher")


def wait(condition: Callable[[], Any], within: float = 30.0) -> Any:
    """Wait until a condition holds; what it said."""
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)
    return found


class Node:
    """A machine's node in a folder of its own, with a distribution of strange plugins."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run_dir = folder, folder / "run"
        self.log = folder / "log"
        (folder / "menagerie.py").write_text(MODULE)
        info = folder / "menagerie-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: menagerie\nVersion: 1.0\n")
        points = "\n".join(f"{name} = menagerie:{name.capitalize()}" for name in NAMES)
        (info / "entry_points.txt").write_text(f"[ciliate.plugins]\n{points}\n")
        self.process: subprocess.Popen[bytes] | None = None
        self._started: list[subprocess.Popen[bytes]] = []

    def configure(self, plugins: list[str], processes: dict[str, list[str]]) -> None:
        config = {
            "plugins": plugins,
            "processes": processes,
            "node": {
                "name": f"proc-{self.folder.name}",
                "run_dir": str(self.run_dir),
                "state_dir": str(self.folder / "state"),
                "bpffs": str(self.folder / "bpf"),
            },
            "store": {"path": str(self.folder / "store.sqlite")},
            "isolation": {"budgets": {"stranger": {"memory": "128M", "cpu": 0.3}}},
            "log": {"format": "json"},
        }
        (self.folder / "ciliate.yaml").write_text(json.dumps(config))

    def start(self, before: str = "") -> None:
        """before: statements for the supervisor's process, whose module is `s`."""
        config = self.folder / "ciliate.yaml"
        command = [str(Path(sys.executable).with_name("ciliate")), "node", "--config", str(config)]
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        if before:  # as the command does, but with other constants
            made = subprocess.check_output([sys.executable, "-m", "ciliate_node.plan", str(config)], env=environment)
            order = Order(msgspec.json.decode(made, type=Plan), str(config), [])
            code = f"import ciliate_node.supervisor as s;{before};s.main()"
            command = [sys.executable, "-c", code, msgspec.json.encode(order).decode()]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            self._started.append(self.process)

    def state(self) -> NodeState:
        state = read_state(self.run_dir)
        return state if state is not None else NodeState(0, 0, [])

    def one(self, process: str) -> ProcessState:
        return next((s for s in self.state().processes if s.process == process), ProcessState(process, []))

    def rex(self) -> dict[str, Any]:
        with suppress(NotServedError, ApiError), Client(self.run_dir / "watch.sock") as client:
            answer: dict[str, Any] = client.get("/rex")
            return answer
        return {"meals": 0, "stale": True, "complete": False}

    def fresh(self) -> int:
        """The meals, if the watcher is up to date."""
        rex = self.rex()
        return int(rex["meals"]) if rex["complete"] and not rex["stale"] else 0

    def stop(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.terminate()
                process.wait(30)
        for state in self.state().processes:
            if state.pid and start_ticks(state.pid) == state.ticks:
                os.kill(state.pid, signal.SIGKILL)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    made.configure(["kitchen", "waiter", "watcher", "stranger"], {"agent": ["kitchen", "waiter"], "watch": ["watcher"]})
    yield made
    made.stop()


def _answers(client: Client, path: str) -> bool:
    """Whether some process serves a route by now."""
    try:
        client.get(path)
    except ApiError:
        return False
    return True


def test_plugins_run_where_they_are_placed_and_tables_cross(node: Node) -> None:
    node.start()
    wait(node.fresh)
    placed = {state.process: state.plugins for state in node.state().processes}
    assert placed == {"agent": ["kitchen", "waiter"], "watch": ["watcher"], "stranger": ["stranger"]}
    assert node.state().fork_server
    with NodeClient(node.run_dir / "agent.sock") as client:
        assert client.get("/rex")["complete"]  # another process's route
        assert wait(lambda: _answers(client, "/role"))  # its card comes after its socket
        assert client.get("/role") == "agent"  # what it declares, though its process has its own name
    assert node.process is not None
    pids = [state.pid for state in node.state().processes]
    node.process.terminate()
    assert node.process.wait(30) == 0
    assert not any(start_ticks(pid) for pid in pids)
    stops = [line for line in node.log.read_text().splitlines() if '"stopped"' in line and '"process"' in line]
    assert [json.loads(line)["process"] for line in stops] == ["stranger", "watch", "agent"]


def test_plugins_that_need_each_other_are_not_separated(node: Node) -> None:
    node.configure(["kitchen", "waiter"], {"agent": ["kitchen"], "side": ["waiter"]})
    node.start()
    assert node.process is not None
    assert node.process.wait(30) == 1
    assert "plugin waiter needs kitchen in its own process, but kitchen is placed in agent" in node.log.read_text()
    assert not node.run_dir.exists()


def test_killed_processes_come_back_and_readers_catch_up(node: Node) -> None:
    node.start()
    chance = random.Random(3)
    meals = wait(node.fresh)
    for _ in range(8):
        victim = chance.choice(["agent", "watch"])
        os.kill(node.one(victim).pid, signal.SIGKILL)
        wait(lambda: node.rex()["meals"] > meals and node.fresh(), 60)  # noqa: B023
        assert node.fresh() >= meals  # what was committed is never lost, what was seen never goes back
        meals = node.fresh()
    with NodeClient(node.run_dir / "agent.sock") as client:
        assert client.get("/rex")["complete"]


def test_the_supervisors_next_life_adopts_what_runs(node: Node) -> None:
    node.start()
    wait(node.fresh)
    wait(lambda: node.one("stranger").pid)
    before = {state.process: state.pid for state in node.state().processes}
    assert node.process is not None
    node.process.kill()
    node.process.wait()
    node.start()
    supervisor = node.process.pid
    wait(lambda: node.state().supervisor == supervisor)
    assert {state.process: state.pid for state in node.state().processes} == before
    assert all(state.adopted for state in node.state().processes)
    os.kill(before["agent"], signal.SIGKILL)
    wait(lambda: node.one("agent").pid not in (0, before["agent"]))
    wait(node.fresh)


def test_two_supervisors_of_one_node_are_one_too_many(node: Node) -> None:
    node.start()
    wait(lambda: node.state().processes)
    node.start()
    assert node.process is not None
    assert node.process.wait(30) == 1
    assert "another `ciliate node` supervises this node" in node.log.read_text()


def test_a_stranger_that_takes_too_much_ends_alone(node: Node) -> None:
    node.start()
    wait(node.fresh)
    wait(lambda: (node.run_dir / "stranger.sock").exists())
    state = node.one("stranger")
    assert state.isolated
    own = Path(f"/proc/{state.pid}/cgroup").read_text()
    assert f"/ciliate/proc-{node.folder.name}/stranger" in own
    assert (
        unified() is None
        or f"/ciliate/proc-{node.folder.name}/agent" in Path(f"/proc/{node.one('agent').pid}/cgroup").read_text()
    )
    assert not state.notes, state.notes
    agent = node.one("agent").pid
    with pytest.raises(NotServedError), Client(node.run_dir / "stranger.sock") as client:
        client.post("/eat")
    wait(lambda: node.one("stranger").last_exit == "signal 9" and node.one("stranger").pid)
    assert node.one("agent").pid == agent
    assert node.fresh()


def test_a_process_that_only_fails_is_disabled_and_the_others_go_on(node: Node) -> None:
    node.configure(["kitchen", "watcher", "crasher"], {"agent": ["kitchen"], "watch": ["watcher"], "bad": ["crasher"]})
    node.start(before="s.BACKOFF_MOST = 0.1; s.TRIES = 3")
    wait(lambda: node.one("bad").state == "disabled")
    assert node.one("bad").last_exit == "exit status 3"
    assert node.one("bad").failures == 3
    assert wait(node.fresh)


def test_a_dead_fork_server_is_replaced(node: Node) -> None:
    node.start()
    wait(node.fresh)
    server = node.state().fork_server
    os.kill(server, signal.SIGKILL)
    os.kill(node.one("watch").pid, signal.SIGKILL)
    wait(lambda: node.state().fork_server not in (0, server))
    wait(node.fresh)
