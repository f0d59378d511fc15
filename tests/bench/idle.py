"""An idle node as a machine has it: `ciliate node` in a network namespace of its own, with chosen plugins."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ciliate.api.client import Client
from ciliate.api.routes import ApiError
from ciliate_node.states import lives, read_state

from tests.node import cni_node

OURS = ("supervisor", "fork server")
"""The two that every node has; the others descend from the first."""
STEADY = 0.3e6
"""Bytes by which two looks at a process may differ when it has come to rest."""

SPARE = '''
from ciliate.plugin import Plugin

class Spare(Plugin):
    """Has nothing and does nothing: what a process costs."""
    name = "spare"
    roles = ("spare",)

class Stranger(Plugin):
    """A third party's: its process has a control group of its own, and a budget."""
    name = "stranger"
'''
POINTS = "[ciliate.plugins]\nspare = spares:Spare\nstranger = spares:Stranger\n"


def pss(pid: int) -> int:
    """Proportional set size of a process, in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{pid}/smaps_rollup has no line Pss")


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [pid, *(one for child in children for one in family(child))]


class IdleNode(cni_node.Node):
    """Use as a context. `processes`: as in the configuration."""

    def __init__(self, octet: int, plugins: Sequence[str], processes: Mapping[str, Sequence[str]]) -> None:
        self._plugins, self._processes = list(plugins), {name: list(those) for name, those in processes.items()}
        super().__init__(octet=octet)

    def _settings(self) -> dict[str, Any]:
        tree = super()._settings() | {"plugins": self._plugins, "processes": self._processes}
        known = {"cluster", "node", "store", "plugins", "processes", *self._plugins}
        tree["hubble"] = {"disable_tls": True, "listen_address": ":0"}
        return {name: section for name, section in tree.items() if name in known}

    def __enter__(self) -> Self:
        strangers = self.folder / "strangers"
        info = strangers / "spares-1.0.dist-info"
        info.mkdir(parents=True)
        (strangers / "spares.py").write_text(SPARE)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: spares\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(POINTS)
        program = Path(sys.executable).with_name("ciliate")
        command = ["nsenter", f"--net=/run/netns/{self.name}", "env", f"PYTHONPATH={strangers}", str(program), "node"]
        with self.log.open("ab") as log:
            self.agent = subprocess.Popen([*command, "--config", str(self.config)], stdout=log, stderr=log)
        try:
            cni_node.wait_for("all processes are ready", self._ready)
        except AssertionError as error:
            said = self.log.read_text()[-4000:]
            self.close()
            raise AssertionError(f"{error}\n{said}") from error
        return self

    def _ready(self) -> bool:
        state = read_state(self.run_dir)
        return bool(state and state.processes) and all(
            lives(one) and self._answers(one.process) for one in (state.processes if state else ())
        )

    def _answers(self, process: str) -> bool:
        try:
            with Client(self.run_dir / f"{process}.sock") as client:
                return bool(client.get("/status")["ready"])
        except ApiError:
            return False

    def sizes(self) -> dict[str, float]:
        """MB of each process, and of the supervisor and the fork server, when none of them grows any more."""
        state = read_state(self.run_dir)
        assert state is not None
        pids = {one.process: one.pid for one in state.processes}
        pids |= dict(zip(OURS, (state.supervisor, state.fork_server), strict=True))
        before: dict[str, int] = {}

        def steady() -> bool:
            now = {name: sum(map(pss, [pid] if name in OURS else family(pid))) for name, pid in pids.items()}
            same = bool(before) and all(abs(now[name] - before[name]) < STEADY for name in now)
            before.update(now)
            return same

        cni_node.wait_for("the processes are at rest", steady)
        return {name: size / 1e6 for name, size in before.items()}

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.agent is not None:
            self.agent.terminate()
            self.agent.wait(cni_node.LIMIT)
            self.agent = None
        self.close()
