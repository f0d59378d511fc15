"""The supervisor of a node's processes.

Plain system calls, no event loop, and next to no imports: it must be small, and the last thing to fail. A process is
watched through a pidfd, so one that an earlier life of the supervisor started is watched like any other.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from ciliate_node import cgroups
from ciliate_node.placement import Placement, Plan
from ciliate_node.starting import ForkServer, Start, StartError, become_subreaper, execute
from ciliate_node.states import NodeState, ProcessState, lives, open_pidfd, read_state, start_ticks, write_state

BACKOFF_FIRST = 0.1
BACKOFF_MOST = 30.0
HEALTHY_AFTER = 10.0
"""Seconds that a process must have run for its failures to be forgotten."""
TRIES = 8
"""Failures in a row after which a process without an essential plugin is disabled."""
STOP_SECONDS = 10.0
"""What a process has for stopping, before it is killed."""


class NodeSupervisor:
    """Starts the plan's processes in order, starts anew those that end, and stops all in reverse."""

    def __init__(self, plan: Plan, config: str, flags: list[str], log_dir: Path | None, *, fork: bool = True) -> None:
        self._plan = plan
        self._run_dir = Path(plan.run_dir)
        self._config, self._flags = config, [*flags, *plan.flags()]
        self._log_dir = log_dir
        self._server = ForkServer(plan.ours) if fork else None
        self._states = [ProcessState(p.process, p.plugins, p.essential, p.budget is not None) for p in plan.placements]
        self._due = {state.process: 0.0 for state in self._states}
        self._watched: dict[int, ProcessState] = {}  # by pidfd
        self._poll = select.poll()
        self._stopping = False

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT. Raises SystemExit if another supervisor does."""
        self._run_dir.mkdir(parents=True, exist_ok=True)
        with (self._run_dir / "node.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say = f"{self._run_dir}: another `ciliate node` supervises this node; stop that one"
                raise SystemExit(say) from None
            self._supervise()

    def _supervise(self) -> None:
        become_subreaper()
        receive, send = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(send, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # orphans of our processes become our children
        self._poll.register(receive, select.POLLIN)
        self._adopt()
        while not self._stopping:
            self._start_due()
            for descriptor, _ in self._poll.poll(self._wait()):
                if descriptor == receive:
                    with suppress(BlockingIOError):
                        os.read(receive, 4096)
                else:
                    self._note_end(self._watched.pop(descriptor), descriptor)
            self._reap_orphans()
        self._stop_all()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _wait(self) -> float | None:
        """Milliseconds until the next start is due."""
        waiting = [self._due[s.process] for s in self._states if s.state == "waiting"]
        return max(0.0, (min(waiting) - time.monotonic()) * 1000) if waiting else None

    def _adopt(self) -> None:
        """Go on with what an earlier life of the supervisor left running; end what is no longer wanted as it is."""
        earlier = read_state(self._run_dir)
        wanted = {state.process: state for state in self._states}
        for old in earlier.processes if earlier is not None else ():
            if not lives(old):
                continue
            state = wanted.get(old.process)
            if state is None or state.plugins != old.plugins:
                _say("process is not in the plan any more", process=old.process, pid=old.pid)
                _end(old.pid, open_pidfd(old.pid))
                continue
            state.pid, state.ticks, state.started, state.restarts = old.pid, old.ticks, old.started, old.restarts
            state.state, state.adopted, state.notes = "running", True, old.notes
            self._watch(state)
            _say("process adopted", process=state.process, pid=state.pid)
        self._report()

    def _watch(self, state: ProcessState) -> None:
        descriptor = open_pidfd(state.pid)
        self._watched[descriptor] = state
        self._poll.register(descriptor, select.POLLIN)

    def _start_due(self) -> None:
        changed = False
        for state, placement in zip(self._states, self._plan.placements, strict=True):
            if state.state == "waiting" and self._due[state.process] <= time.monotonic() and not self._stopping:
                self._start(state, placement)
                changed = True
        if changed:
            self._report()

    def _start(self, state: ProcessState, placement: Placement) -> None:
        made, state.notes = cgroups.groups(self._plan.node, state.process, placement.budget)
        for note in state.notes if placement.budget is not None else ():
            _say("isolation is not whole", process=state.process, reason=note)
        output = str(self._log_dir / f"{state.process}.log") if self._log_dir is not None else ""
        start = Start(state.process, self._config, self._flags, [str(group) for group in made], output)
        state.pid = self._launch(start)
        state.ticks, state.started = start_ticks(state.pid), time.clock_gettime(time.CLOCK_BOOTTIME)
        state.state, state.adopted = "running", False
        self._watch(state)
        _say("process started", process=state.process, pid=state.pid, plugins=state.plugins)

    def _launch(self, start: Start) -> int:
        for again in ("a new one is tried", "started without it") if self._server is not None else ():
            assert self._server is not None
            try:
                return self._server.start(start)
            except StartError as error:
                _say("fork server failed", process=start.process, reason=str(error), next=again)
        return execute(start)

    def _note_end(self, state: ProcessState, descriptor: int) -> None:
        code = _reap(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        state.last_exit = "unknown" if code is None else f"signal {-code}" if code < 0 else f"exit status {code}"
        state.pid, state.restarts = 0, state.restarts + 1
        killed = code == -signal.SIGKILL and not state.isolated  # by somebody's hand; in a budget it is the kernel's
        if killed or time.clock_gettime(time.CLOCK_BOOTTIME) - state.started > HEALTHY_AFTER:
            state.failures = 0
        else:
            state.failures += 1
        delay = min(BACKOFF_FIRST * 2.0 ** (state.failures - 1), BACKOFF_MOST) if state.failures else 0.0
        state.state = "disabled" if state.failures >= TRIES and not state.essential else "waiting"
        self._due[state.process] = time.monotonic() + delay
        next_ = "disabled" if state.state == "disabled" else f"again in {delay:.1f} s"
        _say("process ended", process=state.process, how=state.last_exit, failures=state.failures, next=next_)
        self._report()

    def _reap_orphans(self) -> None:
        """Reap children that are nobody's: what our processes left behind when they ended."""
        ours = {state.pid for state in self._watched.values()} | {self._server.pid if self._server is not None else 0}
        with suppress(ChildProcessError):
            while (info := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if info.si_pid in ours:
                    return  # it is waited for through its pidfd; others are looked at the next time
                os.waitid(os.P_PID, info.si_pid, os.WEXITED)

    def _stop_all(self) -> None:
        _say("stopping", processes=len(self._watched))
        if self._server is not None:
            self._server.stop()
        running = {state.process: (descriptor, state) for descriptor, state in self._watched.items()}
        for state in reversed(self._states):
            if state.process in running:
                descriptor, _ = running[state.process]
                if not _end(state.pid, descriptor):
                    _say("process did not stop in time and was killed", process=state.process)
                os.close(descriptor)
                state.pid = 0
            state.state = "stopped"
        self._report()
        cgroups.remove(self._plan.node)

    def _report(self) -> None:
        server = self._server.pid if self._server is not None else 0
        write_state(self._run_dir, NodeState(os.getpid(), server, self._states))


def _reap(descriptor: int) -> int | None:
    """A process's exit code, negative for a signal; None if it is not our child."""
    try:
        info = os.waitid(os.P_PIDFD, descriptor, os.WEXITED)
    except ChildProcessError:
        return None
    if info is None:
        return None
    return int(info.si_status) if info.si_code == os.CLD_EXITED else -int(info.si_status)


def _end(pid: int, descriptor: int) -> bool:
    """Stop a process, or kill it if it doesn't within STOP_SECONDS (False)."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
    ended = select.select([descriptor], [], [], STOP_SECONDS)[0]
    if not ended:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [], STOP_SECONDS)
    _reap(descriptor)
    return bool(ended)


def _say(event: str, **values: object) -> None:
    """One line of JSON on standard error, as the processes' logs in that format."""
    line = {**values, "event": event, "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    print(json.dumps(line), file=sys.stderr, flush=True)


class Order(msgspec.Struct):
    """What the supervisor is told to do."""

    plan: Plan
    config: str
    flags: list[str]
    log_dir: str = ""
    fork: bool = True


def become(order: Order) -> NoReturn:
    """Replace this program by the supervisor, which needs little of what a command has imported."""
    words = [sys.executable, "-m", "ciliate_node.supervisor", msgspec.json.encode(order).decode()]
    os.execv(sys.executable, words)


def main() -> None:
    """Entry point of the process."""
    order = msgspec.json.decode(sys.argv[1], type=Order)
    log_dir = Path(order.log_dir) if order.log_dir else None
    NodeSupervisor(order.plan, order.config, order.flags, log_dir, fork=order.fork).run()


if __name__ == "__main__":
    main()
