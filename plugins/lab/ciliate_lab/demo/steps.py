"""The steps of the demonstration; each checks what it shows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from ciliate_lab.demo.shell import BIN, ENVIRONMENT, DemoError, ask, in_pod, output, say, show, wait

MANIFESTS = Path(__file__).parent / "manifests"
SHOWN = os.path.relpath(MANIFESTS)
TRAFFIC = Path(__file__).with_name("traffic.py")
PORTS = {"web": 80, "api": 8080, "db": 5432}
ALLOWED = {("web", "api"), ("api", "web"), ("db", "web"), ("api", "db")}
"""Which tier may reach which once the policies are in force."""
PATHS = [(a, b) for a in PORTS for b in PORTS if a != b]
SECONDS = 10.0
KILL_AFTER = 3.0


def start() -> None:
    """A lab of one node."""
    show("ciliate", "lab", "up")


def deploy() -> None:
    """The application's pods."""
    show("ciliate", "apply", "-f", f"{SHOWN}/app.yaml")
    wait("the three pods", lambda: sum(pod["ready"] for pod in _pods().values()) == len(PORTS))
    show("ciliate", "get", "pods")


def before() -> None:
    """Everything answers."""
    for source, target, reached in _matrix():
        say(f"   {source:>4} -> {target:<4} {'answers' if reached else 'DOES NOT ANSWER'}")
        if not reached:
            raise DemoError(f"without a policy, {source} must reach {target}")


def protect() -> None:
    """The policies, until enforced."""
    show("ciliate", "apply", "--wait", "-f", f"{SHOWN}/policies.yaml")


def after() -> None:
    """What answers now, and why."""
    for source, target, reached in _matrix():
        verdict, rule = _explain(source, target)
        say(f"   {source:>4} -> {target:<4} {'answers' if reached else 'no answer':<10} {verdict:<8} by {rule}")
        expected = (source, target) in ALLOWED
        if reached != expected or (verdict == "allowed") != expected:
            raise DemoError(f"{source} -> {target} must be {'allowed' if expected else 'denied'}")


def events() -> None:
    """The verdicts of the data path, as they come."""
    command = [str(BIN / "ciliate-dbg"), "monitor"]
    monitor = subprocess.Popen(command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    os.set_blocking(monitor.stdout.fileno(), False)  # type: ignore[union-attr]
    lines: list[str] = []

    def seen() -> bool:
        for source, target in (("web", "api"), ("web", "db")):
            _reaches(source, target)
        lines.extend((monitor.stdout.read() or "").splitlines())  # type: ignore[union-attr]
        return any("5432" in line for line in lines) and any("8080" in line for line in lines)

    say("   $ ciliate-dbg monitor")
    try:
        wait("an allowed and a denied event", seen)
    finally:
        monitor.kill()
        monitor.wait()
    for port in ("8080", "5432"):
        say(f"     {next(line for line in lines if port in line)}")


def kill() -> None:
    """SIGKILL to the agent under traffic: what was sent, lost and wrong."""
    pods = _pods()
    words = [str(SECONDS), "allowed", *pods["api"]["ips"], "denied", *pods["db"]["ips"]]
    traffic = in_pod("web", "/usr/bin/python3", "-S", str(TRAFFIC), *words)
    began = time.monotonic()
    wait("the moment", lambda: time.monotonic() - began > KILL_AFTER)
    agent = _agent()
    os.kill(agent["pid"], signal.SIGKILL)
    killed = time.monotonic()
    say(f"   $ kill -KILL {agent['pid']}     the agent of node1")
    wait("another agent", lambda: (now := _agent())["ready"] and now["pid"] != agent["pid"])
    say(f"   another agent is ready after {time.monotonic() - killed:.1f} s")
    counts = json.loads(output(traffic))
    _tell(counts)
    show("ciliate", "policy", "explain", "--from", "web", "--to", "db", "--port", "5432/tcp")


def _tell(counts: dict[str, int]) -> None:
    lost = wrong = 0
    for kind, what in (
        ("packets", "UDP packets, one every 2 ms"),
        ("requests", "HTTP requests over connections that were open before"),
        ("connections", "HTTP requests over new connections"),
    ):
        sent, missing = counts.get(f"{kind}_sent", 0), counts.get(f"{kind}_lost", 0)
        say(f"   {sent:6} sent, {missing} lost      {what}")
        lost += missing
        if not sent:
            raise DemoError(f"no {kind} were sent")
    wrong = counts.get("denied_answered", 0)
    say(f"   {counts.get('denied_sent', 0):6} sent, {wrong} answered  attempts from web at db, which the policy denies")
    say(f"   lost {lost}, wrong {wrong}")
    if lost or wrong or not counts.get("denied_sent"):
        raise DemoError("a restart of the agent must lose nothing and let nothing through")


def _pods() -> dict[str, dict[str, Any]]:
    return {pod["name"]: pod for pod in ask("ciliate", "lab", "status")["pods"]}


def _agent() -> dict[str, Any]:
    processes: list[dict[str, Any]] = ask("ciliate", "lab", "status")["processes"]
    return next(process for process in processes if process["name"] == "agent")


def _matrix() -> list[tuple[str, str, bool]]:
    """Every path between tiers, and whether the target answers; both families must agree."""
    attempts = {(a, b): _attempts(a, b) for a, b in PATHS}
    found = []
    for (source, target), running in attempts.items():
        codes = [attempt.wait() == 0 for attempt in running]
        if len(set(codes)) != 1:
            raise DemoError(f"{source} -> {target}: IPv4 and IPv6 differ: {codes}")
        found.append((source, target, codes[0]))
    return found


def _reaches(source: str, target: str) -> bool:
    return all(attempt.wait() == 0 for attempt in _attempts(source, target))


def _attempts(source: str, target: str) -> list[subprocess.Popen[str]]:
    """A GET of the target's page by each family, under way."""
    urls = [f"http://{f'[{ip}]' if ':' in ip else ip}:{PORTS[target]}/" for ip in _pods()[target]["ips"]]
    return [in_pod(source, "curl", "--silent", "--output", "/dev/null", "--max-time", "2", url) for url in urls]


def _explain(source: str, target: str) -> tuple[str, str]:
    """The verdict, and the rule that gives it."""
    answer = ask("ciliate", "policy", "explain", "--from", source, "--to", target, "--port", f"{PORTS[target]}/tcp")
    sides = [side for side in (answer.get("egress"), answer.get("ingress")) if side]
    denying = [side for side in sides if side["verdict"] == "denied"]
    deciding = denying[0] if denying else sides[-1]
    return answer["verdict"], ", ".join(rule["path"] for rule in deciding["rules"])
