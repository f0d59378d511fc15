"""The steps of the demonstration; each checks what it shows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from ciliate_lab.demo.shell import BIN, ENVIRONMENT, LAB, DemoError, ask, in_pod, output, say, show, wait
from ciliate_lab.place import LabPlace
from ciliate_lab.report import lab_status

MANIFESTS = Path(__file__).parent / "manifests"
SHOWN = os.path.relpath(MANIFESTS)
TRAFFIC = Path(__file__).with_name("traffic.py")
PORTS = {"web": 80, "api": 8080, "db": 5432}
ALLOWED = {("web", "api"), ("api", "web"), ("db", "web"), ("api", "db")}
"""Which tier may reach which once the policies are in force."""
SECONDS = 10.0
KILL_AFTER = 3.0
KEPT = 65535
"""Flows that the node keeps."""


def start() -> None:
    """A lab of one node, that keeps all flows of what follows."""
    show("ciliate", "lab", "up", "--set", f"hubble.event_buffer_capacity={KEPT}")


def deploy() -> None:
    """The application's pods."""
    show("ciliate", "apply", "-f", f"{SHOWN}/app.yaml")
    wait("the three pods", lambda: sum(pod["ready"] for pod in _pods().values()) == len(PORTS))
    show("ciliate", "get", "pods")


def before() -> None:
    """Everything answers."""
    say("   $ ciliate lab exec web -- curl http://ADDRESS:8080/      and so on: each pair, IPv4 and IPv6")
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

    pods = _pods()

    def seen() -> bool:
        output(_attempts(pods, "web", ["api", "db"]))
        lines.extend((monitor.stdout.read() or "").splitlines())  # type: ignore[union-attr]
        allowed = any(":8080" in line and "policy-verdict" in line for line in lines)
        return allowed and any(":5432" in line and "drop" in line for line in lines)

    say("   $ ciliate-dbg monitor")
    try:
        wait("an allowed and a denied event", seen)
    finally:
        monitor.kill()
        monitor.wait()
    for port, what in ((":8080", "policy-verdict"), (":5432", "drop")):
        say(f"     {next(line for line in lines if port in line and what in line)}")


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


def flows() -> None:
    """What Hubble kept of all that: every denied flow names the rule that denied it."""
    show("ciliate", "hubble", "status")
    show(
        "ciliate",
        "hubble",
        "observe",
        "-t",
        "policy-verdict",
        "--verdict",
        "FORWARDED",
        "--to-port",
        "8080",
        "--last",
        "2",
        "--rule",
    )
    for source, target in _denied_pairs():
        show(
            "ciliate",
            "hubble",
            "observe",
            "-t",
            "drop",
            "--from-pod",
            source,
            "--to-pod",
            target,
            "--last",
            "1",
            "--rule",
        )
    kept = _flows()
    denied = [
        flow for flow in kept if flow.get("verdict") == "DROPPED" and flow.get("drop_reason_desc") == "POLICY_DENIED"
    ]
    if not denied or any(not (flow.get("ingress_denied_by") or flow.get("egress_denied_by")) for flow in denied):
        raise DemoError("each denied flow must name its rule")
    say(f"   {len(kept)} flows kept, {len(denied)} of them denied by a policy: each names its rule")


def _denied_pairs() -> list[tuple[str, str]]:
    return [
        (source, target) for source in PORTS for target in PORTS if source != target and (source, target) not in ALLOWED
    ]


def _flows() -> list[dict[str, Any]]:
    command = [str(BIN / "ciliate"), "hubble", "observe", "--all", "-s", "-o", "json"]
    answers = subprocess.run(command, env=ENVIRONMENT, text=True, capture_output=True, check=True).stdout
    return [json.loads(line).get("flow", {}) for line in answers.splitlines()]


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
    return {pod["name"]: pod for pod in lab_status(LabPlace(LAB))["pods"]}


def _agent() -> dict[str, Any]:
    processes: list[dict[str, Any]] = lab_status(LabPlace(LAB))["processes"]
    return next(process for process in processes if process["name"] == "agent")


def _matrix() -> list[tuple[str, str, bool]]:
    """Every path between tiers, and whether the target answers; both families must agree."""
    pods = _pods()
    attempts = {source: _attempts(pods, source, [t for t in PORTS if t != source]) for source in PORTS}
    found = []
    for source, attempt in attempts.items():
        codes = iter(output(attempt).split())
        for target in (t for t in PORTS if t != source):
            answered = [next(codes) == "0" for _ in pods[target]["ips"]]
            if len(set(answered)) != 1:
                raise DemoError(f"{source} -> {target}: the families differ: {pods[target]['ips']} {answered}")
            found.append((source, target, answered[0]))
    return found


def _attempts(pods: dict[str, dict[str, Any]], source: str, targets: list[str]) -> subprocess.Popen[str]:
    """A GET of each target's page by each family, from one pod, all at once; prints curl's status of each in order."""
    urls = [
        f"http://{f'[{ip}]' if ':' in ip else ip}:{PORTS[target]}/" for target in targets for ip in pods[target]["ips"]
    ]
    script = """
    for url in "$@"; do curl -so /dev/null --max-time 2 "$url" & pids="$pids $!"; done
    for pid in $pids; do wait $pid; echo $?; done
    """
    return in_pod(source, "sh", "-c", script, "sh", *urls)


def _explain(source: str, target: str) -> tuple[str, str]:
    """The verdict, and the rule that gives it."""
    answer = ask("ciliate", "policy", "explain", "--from", source, "--to", target, "--port", f"{PORTS[target]}/tcp")
    sides = [side for side in (answer.get("egress"), answer.get("ingress")) if side]
    denying = [side for side in sides if side["verdict"] == "denied"]
    deciding = denying[0] if denying else sides[-1]
    return answer["verdict"], ", ".join(rule["path"] for rule in deciding["rules"])
