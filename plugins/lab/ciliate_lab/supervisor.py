"""The lab's supervisor: starts its processes where they belong and starts those that end anew.

A process of its own (`python -m ciliate_lab.supervisor LAB`) that survives the command that started it. Plain system
calls and no event loop: it must be the last thing to fail. If it is killed nevertheless, the next one takes over the
processes that still run: they are in the cgroups that the specs name.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from ciliate_lab import cgroups, namespaces, system
from ciliate_lab.node.record import runs, start_time
from ciliate_lab.place import LabPlace

BACKOFF_FIRST = 0.1
BACKOFF_MOST = 5.0
HEALTHY_AFTER = 10.0
"""Seconds that a process must have run for the next start to come at once."""
LOOK = 0.1
"""Seconds between two looks at processes that a former supervisor started: their end is told to others."""


class ProcessSpec(msgspec.Struct, frozen=True):
    """What to run, and where."""

    name: str  # operator, relay, agent, kubelet, hubble
    node: str  # "" for the cluster's own
    argv: list[str]
    namespace: str  # network namespace, by name
    cgroup: str
    log: str
    socket: str  # of its API


class RunningProcess(msgspec.Struct):
    """What is known of one process."""

    name: str
    node: str
    socket: str
    log: str
    pid: int = 0  # 0: not running
    started: float = 0.0  # seconds since the epoch
    restarts: int = 0
    last_exit: str = ""  # how it ended last: "exit status 1", "signal 9"


class Running(msgspec.Struct):
    """All that the supervisor runs."""

    supervisor: int  # its pid
    processes: list[RunningProcess]


def read_running(lab: LabPlace) -> Running | None:
    """What the supervisor said last; None if it has said nothing."""
    try:
        return msgspec.json.decode(lab.running.read_bytes(), type=Running)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


class LabSupervisor:
    """The loop: start what is due, wait for a child's end or the next start."""

    def __init__(self, lab: LabPlace) -> None:
        self._lab = lab
        self._specs = msgspec.json.decode(lab.processes.read_bytes(), type=list[ProcessSpec])
        self._states = [RunningProcess(s.name, s.node, s.socket, s.log) for s in self._specs]
        self._due = [0.0 for _ in self._specs]
        self._delays = [BACKOFF_FIRST for _ in self._specs]
        self._began = [0.0 for _ in self._specs]  # by the clock that nobody sets
        self._inherited: dict[int, int] = {}  # index to the start time of a process that is no child of ours
        self._take_over()

    def _take_over(self) -> None:
        """Know what a former supervisor started and what goes on without it."""
        former = read_running(self._lab)
        for index, (spec, state) in enumerate(zip(self._specs, self._states, strict=True)):
            if (pid := _running(spec)) and runs(pid, began := start_time(pid)):
                state.pid, self._inherited[index] = pid, began
                self._began[index] = time.monotonic()
            for known in former.processes if former else ():
                if (known.name, known.node) == (state.name, state.node):
                    state.restarts, state.started, state.last_exit = known.restarts, known.started, known.last_exit
        if former:
            self._report()

    def run(self) -> None:
        """Keep all processes running until told to stop; they then go on alone."""
        wanted = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
        while True:
            self._start_due()
            waiting = [due for due, state in zip(self._due, self._states, strict=True) if not state.pid]
            if self._inherited:
                waiting.append(time.monotonic() + LOOK)
            if waiting:
                info = signal.sigtimedwait(wanted, max(0.0, min(waiting) - time.monotonic()))
            else:
                info = signal.sigwaitinfo(wanted)
            # Not "anything but SIGCHLD": of a wait stopped past its limit, CPython 3.11 gives an unset siginfo.
            if info is not None and info.si_signo in (signal.SIGTERM, signal.SIGINT):
                return
            self._look()
            self._reap()

    def _look(self) -> None:
        """Notice the end of processes that are not our children; how they ended nobody tells us."""
        ended = [index for index, began in self._inherited.items() if not runs(self._states[index].pid, began)]
        for index in ended:
            del self._inherited[index]
            self._note_end(index, "unknown", at_once=True)
        if ended:
            self._report()

    def _start_due(self) -> None:
        changed = False
        for index, state in enumerate(self._states):
            if not state.pid and self._due[index] <= time.monotonic():
                state.pid, state.started = _spawn(self._specs[index]), time.time()
                self._began[index] = time.monotonic()
                changed = True
        if changed:
            self._report()

    def _reap(self) -> None:
        changed = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            for index, state in enumerate(self._states):
                if state.pid == pid:
                    code = os.waitstatus_to_exitcode(status)
                    how = f"signal {-code}" if code < 0 else f"exit status {code}"
                    self._note_end(index, how, at_once=code == -signal.SIGKILL)
                    changed = True
        if changed:
            self._report()

    def _note_end(self, index: int, how: str, at_once: bool) -> None:
        state = self._states[index]
        state.last_exit = how
        healthy = time.monotonic() - self._began[index] > HEALTHY_AFTER
        delay = 0.0 if healthy or at_once else self._delays[index]
        self._delays[index] = BACKOFF_FIRST if delay == 0.0 else min(2 * delay, BACKOFF_MOST)
        self._due[index] = time.monotonic() + delay
        state.pid = 0
        state.restarts += 1
        who = f"{state.node}/{state.name}" if state.node else state.name
        print(f"{time.strftime('%H:%M:%S')} {who} ended with {state.last_exit}; again in {delay:.1f} s", flush=True)

    def _report(self) -> None:
        new = self._lab.running.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(Running(os.getpid(), self._states)))
        new.rename(self._lab.running)


def _running(spec: ProcessSpec) -> int:
    """The process of a spec that runs already; 0 if none does. Its children are in its cgroup too."""
    for pid in cgroups.pids(Path(spec.cgroup)):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
            if words[-len(spec.argv) :] == spec.argv:
                return pid
    return 0


def _spawn(spec: ProcessSpec) -> int:
    """Fork a process into its cgroup and network namespace; its output goes to its log."""
    pid = os.fork()
    if not pid:
        _become(spec)
    return pid


def _become(spec: ProcessSpec) -> NoReturn:
    try:
        Path(spec.log).parent.mkdir(parents=True, exist_ok=True)
        log = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.setsid()
        Path(spec.cgroup).mkdir(parents=True, exist_ok=True)
        Path(spec.cgroup, "cgroup.procs").write_text(str(os.getpid()))
        system.setns(namespaces.path(spec.namespace))
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        os.execv(spec.argv[0], spec.argv)
    except BaseException as error:  # nothing may return into the parent's loop
        with suppress(OSError):
            os.write(2, f"starting {spec.name}: {error}\n".encode())
    finally:
        os._exit(70)


def launch(lab: LabPlace) -> None:
    """Start the supervisor, in the lab's cgroup and apart from the caller's terminal."""
    lab.supervisor_log.parent.mkdir(parents=True, exist_ok=True)
    group = cgroups.create(lab.cgroup / "supervisor")
    script = 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"'
    command = [sys.executable, "-m", "ciliate_lab.supervisor", lab.name]
    with lab.supervisor_log.open("ab") as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", script, "sh", str(group), *command],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    process.returncode = 0  # it is to outlive us: nobody waits for it


def resume(lab: LabPlace) -> bool:
    """Start the supervisor of a lab that has lost its own, and is not being started; whether it had."""
    former = read_running(lab)
    if former is None or runs(former.supervisor, start_time(former.supervisor)):
        return False
    launch(lab)
    return True


def main() -> None:
    """Entry point of the process."""
    LabSupervisor(LabPlace(sys.argv[1])).run()


if __name__ == "__main__":
    main()
