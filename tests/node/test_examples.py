"""The packages of examples/, installed as strangers' packages are, enabled in a lab, seen at work, and disabled."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from ciliate_lab import namespaces

from tests.node.labs import BIN, Lab, Pod, echo, reason_not_to_run, until

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("denied-flows", "rate-limiter")
BUILT_IN = ["cni", "ipam", "policy", "lab"]
DISK = 256 * 1024
LIMIT = 20
ANNOTATION = "rate-limiter.example/packets-per-second"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages' own folders, away from this repository."""
    folder = tmp_path_factory.mktemp("strangers")
    for name in NAMES:
        shutil.copytree(EXAMPLES / name, folder / name, ignore=shutil.ignore_patterns("*.o", "__pycache__", ".*"))
    return folder


@pytest.fixture(scope="module")
def installed(sources: Path) -> Iterator[Path]:
    """A folder with both packages as pip installs them, on the path of all that is started meanwhile."""
    target = sources / "installed"
    options = ["--quiet", "--offline", "--no-deps", "--no-build-isolation", "--python", sys.executable]
    packages = [str(sources / name) for name in NAMES]
    command = [str(BIN / "uv"), "pip", "install", *options, "--target", str(target), *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(target))
        yield target


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small disk."""
    if reason := reason_not_to_run():
        pytest.skip(reason)
    point = tmp_path_factory.mktemp("disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "examples", point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


@pytest.fixture(scope="module")
def examples(installed: Path, disk: Path) -> Iterator[Lab]:
    """A lab with both plugins enabled."""
    lab = Lab(f"examples-{os.getpid()}")
    try:
        plugins = f"plugins={json.dumps([*BUILT_IN, *NAMES])}"
        lab.up("--set", plugins, "--set", f"denied-flows.path={disk}/flows", "--set", "denied-flows.max_size=65536")
        yield lab
    finally:
        lab.down()
    assert lab.left() == []


@pytest.fixture(scope="module")
def pods(examples: Lab) -> tuple[Pod, Pod]:
    """A client, and a server to which nobody is let."""
    server = examples.run("server", *echo("8080/tcp"), ports=["8080/tcp"], labels=["app=server"])
    client = examples.run("client", "sleep", "inf")
    examples.apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "nobody", "namespace": "default"},
            "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]},
        }
    )
    return client, server


def flows(lab: Lab) -> list[dict[str, Any]]:
    """What `ciliate-dbg denied-flows` prints."""
    printed = lab._command("ciliate-dbg", "denied-flows", "--count", "100").stdout
    return [json.loads(line) for line in printed.splitlines()]


def metric(lab: Lab, name: str) -> float:
    """The sum of a metric's samples, or of the one that is named with its labels."""
    text = lab._command("ciliate-dbg", "metrics").stdout
    samples = [line.rsplit(" ", 1) for line in text.splitlines()]
    return sum(float(value) for sample, value in samples if sample == name or sample.startswith(f"{name}{{"))


def complaints(lab: Lab) -> str:
    """What is wrong with the agent; with its examples it is ready all the same."""
    agent = lab.process("agent")
    assert agent["ready"]
    return " ".join(agent["degraded"])


def pings(pod: Pod, address: str, count: int) -> int:
    """How many of so many echo requests, sent at once, are answered."""
    words = ["ping", "-n", "-q", "-c", str(count), "-l", str(count), "-W", "1", address]
    command = ["nsenter", f"--net={namespaces.path(pod.netns)}", *words]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+) received", said)
    assert found, said
    return int(found[1])


@pytest.mark.usefixtures("installed")
def test_a_package_passes_its_own_tests(sources: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir=.", "-p", "no:asyncio"]
    done = subprocess.run(command, cwd=sources / "denied-flows", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout


def test_a_denied_flow_is_a_line_with_names(examples: Lab, pods: tuple[Pod, Pod]) -> None:
    client, server = pods
    assert not client.reaches(server, 8080)
    found = until(lambda: {flow["destination"]["address"]: flow for flow in flows(examples)}, what="a line")
    assert set(found) == set(server.addresses)
    for flow in found.values():
        assert flow["reason"] == "Policy denied"
        assert flow["rules"] == ["NetworkPolicy default/nobody (default deny, ingress)"]
        assert (flow["source"]["pod"], flow["destination"]["pod"]) == ("client", "server")
        assert "k8s:app=server" in flow["destination"]["labels"]
        assert flow["destination"]["port"] == 8080
    assert metric(examples, "ciliate_denied_flows_total") >= 2


def test_a_full_disk_is_told_by_health_and_then_in_the_file(examples: Lab, pods: tuple[Pod, Pod], disk: Path) -> None:
    client, server = pods
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    size = (disk / "flows").stat().st_size

    def refused() -> bool:
        client.connects(server.ipv4, 8080)
        return "No space left" in complaints(examples)

    until(refused, timeout=30, what="health to tell")
    assert (disk / "flows").read_bytes().endswith(b"\n")
    filler.unlink()
    until(lambda: not complaints(examples), what="health to be well again")
    told = [line["lost"] for line in flows(examples) if "lost" in line]  # several, if the file's last page had room
    assert sum(lost["unwritten"] for lost in told) == metric(examples, 'ciliate_denied_flows_total{fate="lost"}') >= 1
    assert (disk / "flows").stat().st_size > size
    before = len(flows(examples))
    assert not client.connects(server.ipv6, 8080)
    until(lambda: len(flows(examples)) > before, what="a line after the trouble")


def test_a_pod_that_sends_too_much_is_held_back_and_no_other(examples: Lab, pods: tuple[Pod, Pod]) -> None:
    client, _ = pods
    limited = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "limited", "namespace": "default", "annotations": {ANNOTATION: str(LIMIT)}},
        "spec": {"containers": [{"name": "box", "command": ["sleep", "inf"]}]},
    }
    examples.ciliate("apply", "-f", "-", input=yaml.safe_dump(limited))
    until(lambda: any(p["name"] == "limited" and p["ready"] for p in examples.status()["pods"]), what="the pod")
    (row,) = until(lambda: examples.dbg("rate-limits"), what="the limit")
    assert (row["namespace"], row["pod"], row["packets_per_second"]) == ("default", "limited", LIMIT)
    pod = examples.pod("limited")
    for address in client.addresses:
        assert 1 <= pings(pod, address, 100) <= 3 * LIMIT
        assert pings(client, pods[0].ipv4, 100) == 100
    (row,) = examples.dbg("rate-limits")
    assert row["dropped"] >= 100
    assert metric(examples, "ciliate_rate_limiter_packets_total") == row["passed"] + row["dropped"]
    assert metric(examples, "ciliate_point_drops_total") == row["dropped"]
    drops = {count["reason"]: count["packets"] for count in examples.dbg("bpf", "metrics", "list")}
    assert drops["Dropped by a plugin's program"] == row["dropped"]


def test_a_limit_that_is_changed_holds_at_once_and_none_is_none(examples: Lab) -> None:
    def annotated(value: str) -> None:
        pod = yaml.safe_load(examples.ciliate("get", "pod", "limited", "-o", "yaml").stdout)
        pod["metadata"]["annotations"] = {ANNOTATION: value}
        examples.ciliate("apply", "-f", "-", input=yaml.safe_dump(pod))

    annotated("5000")
    until(lambda: examples.dbg("rate-limits")[0]["packets_per_second"] == 5000, what="the new limit")
    assert pings(examples.pod("limited"), examples.pod("client").ipv4, 100) == 100
    annotated("0")
    until(lambda: examples.dbg("rate-limits") == [], what="no limit")


def test_what_is_disabled_is_gone(examples: Lab, disk: Path) -> None:
    node = examples.place.node(1)
    bpffs = node.bpf_mount / "ciliate"
    assert list((bpffs / "points" / "from_pod").iterdir())
    assert (bpffs / "maps" / "rate_buckets").exists()
    settings = yaml.safe_load(node.config.read_text())
    settings["plugins"] = BUILT_IN
    del settings["denied-flows"]
    node.config.write_text(yaml.safe_dump(settings))
    pid = examples.signal("agent", signal.SIGTERM)
    until(lambda: examples.process("agent")["pid"] not in (0, pid) and examples.status()["ready"], 30, "a new agent")
    states = {row["name"]: row["state"] for row in json.loads(examples.ciliate("plugins", "-o", "json").stdout)}
    assert [states[name] for name in NAMES] == ["available", "available"]
    until(lambda: not list((bpffs / "points" / "from_pod").iterdir()), timeout=20, what="the program's end")
    assert [path for path in bpffs.glob("*/*") if "rate" in path.name] == []
    with closing(sqlite3.connect(f"file:{node.state_dir}/tables/agent.sqlite?mode=ro", uri=True)) as file:
        kept = {name for (name,) in file.execute("SELECT name FROM tables")}
    assert "endpoints" in kept and "rate_limits" not in kept
    assert metric(examples, "ciliate_denied_flows_total") + metric(examples, "ciliate_point_packets_total") == 0
    assert "no route" in examples._command("ciliate-dbg", "rate-limits", check=False).stderr
    before = (disk / "flows").stat().st_size
    assert not examples.pod("client").reaches(examples.pod("server"), 8080)
    assert (disk / "flows").stat().st_size == before
