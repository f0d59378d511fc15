"""SIGKILL at random, by a seed: of every process that a lab has, its supervisor included."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from ciliate_lab.supervisor import read_running

from tests.node.faults import FULL
from tests.node.labs import Lab

TARGETS = {"agent": 4, "kubelet": 2, "hubble": 2, "operator": 1, "relay": 1, "supervisor": 2}
"""What is killed, and how often as against the others."""
SHORTEST, LONGEST = 0.2, (5.0 if FULL else 3.0)
"""Seconds between two kills: some come while the last one's successor is still starting."""
TWO_AT_ONCE = 0.2
RESUME = "import sys; from ciliate_lab import place, supervisor; supervisor.resume(place.LabPlace(sys.argv[1]))"


@dataclass
class Killer:
    """Kills until a time is over."""

    lab: Lab
    seed: int
    killed: Counter[str] = field(default_factory=Counter)

    def run(self, seconds: float) -> None:
        """Kill for so many seconds; afterwards a supervisor runs."""
        chance = random.Random(self.seed)
        names, weights = list(TARGETS), list(TARGETS.values())
        first = chance.sample(names, len(names))  # so that even a short run kills each
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(chance.uniform(SHORTEST, LONGEST), left))  # the time between faults is a part of the test
            both = chance.random() < TWO_AT_ONCE
            victims = {first.pop()} if first else set(chance.choices(names, weights, k=2 if both else 1))
            for name in sorted(victims):
                self.kill(name)
            if "supervisor" in victims:
                time.sleep(chance.uniform(0, 1.0))
                self.resume()

    def kill(self, name: str) -> None:
        """Kill one process, if it runs just now."""
        running = read_running(self.lab.place)
        assert running is not None
        pids = {process.name: process.pid for process in running.processes} | {"supervisor": running.supervisor}
        if pids[name]:
            with suppress(ProcessLookupError):
                os.kill(pids[name], signal.SIGKILL)
                self.killed[name] += 1

    def resume(self) -> None:
        """What systemd would do: start the supervisor anew. In a process of its own, so that it is nobody's child."""
        subprocess.run([sys.executable, "-c", RESUME, self.lab.name], check=True)
