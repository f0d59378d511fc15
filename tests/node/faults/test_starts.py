"""Starts that can't be: refused with one sentence, and without harm to what runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from ciliate.api.routes import ApiError
from ciliate.kernel import bpffs
from ciliate.kernel.attributes import Command

from tests.node.cni_node import Node, wait_for
from tests.node.faults.inventory import await_equal, settled
from tests.node.faults.steady import Steady
from tests.node.labs import Lab

CILIATE = str(Path(sys.executable).parent / "ciliate")


def start(config: Path, *before: str, limit: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Start an agent that is to fail, by way of the command `before`."""
    command = [*before, CILIATE, "agent", "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """What a refused start says, in one line without a traceback."""
    assert done.returncode == 1, done
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of a node that does not run."""
    folders = {"run_dir": f"{tmp_path}/run", "state_dir": f"{tmp_path}/state", "bpffs": f"{tmp_path}/bpf"}
    tree = {
        "plugins": ["cni", "ipam"],
        "node": {"name": "n", **folders},
        "store": {"driver": "local", "path": f"{tmp_path}/store.sqlite"},
        "cni": {"install": False},
    }
    path = tmp_path / "ciliate.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_second_agent_of_a_node_is_refused_and_the_first_unharmed(lab: Lab, steady: Callable[..., Steady]) -> None:
    node = lab.place.node(1)
    before, first = settled(lab), lab.process("agent")["pid"]
    inside = ["nsenter", f"--net=/run/netns/{node.namespace}"]
    with steady() as traffic:
        with ThreadPoolExecutor(3) as pool:
            second = list(pool.map(lambda _: start(node.config, *inside), range(3)))
        figures = traffic.stop()
    for done in second:
        assert "agent.sock: another process serves it; stop that one first" in refused(done)
    figures.check()
    assert lab.process("agent")["pid"] == first
    await_equal(lab, before)
    pod = lab.run("after", "sleep", "inf", namespace="starts")
    assert pod.pings(node_address(lab))
    lab.remove("after", namespace="starts")


def node_address(lab: Lab) -> str:
    """An address of the node itself."""
    address: str = lab.status()["nodes"][0]["addresses"][0]
    return address


def test_of_two_agents_started_at_once_one_serves() -> None:
    node = Node(octet=115, policy="real")
    try:
        node.start(wait=False)
        first = node.agent
        node.start(wait=False)
        agents = [agent for agent in (first, node.agent) if agent is not None]
        wait_for("one gives way", lambda: any(a.poll() is not None for a in agents))
        node.agent = next(agent for agent in agents if agent.poll() is None)
        assert [agent.returncode for agent in agents if agent is not node.agent] == [1]
        assert "another process serves it" in node.log.read_text()
        node.await_ready()
        node.delete(node.add())
    finally:
        node.close()


def test_without_root_the_agent_says_so(config: Path) -> None:
    said = refused(start(config, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"))
    assert "must run as root" in said


def test_without_a_bpffs_the_agent_names_the_mount_command(config: Path) -> None:
    said = refused(start(config))
    assert f"mount -t bpf bpf {config.parent / 'bpf'}" in said


def test_a_configuration_with_unknown_keys_is_refused_with_their_paths(config: Path) -> None:
    tree = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**tree, "cni": {"instal": False}}))
    said = refused(start(config))
    assert "cni.instal" in said
    assert str(config) in said
    config.write_text(yaml.safe_dump({**tree, "cnii": {"x": 1}}))
    assert "cnii" in refused(start(config))
    config.write_text("{" * 1000)
    assert str(config) in refused(start(config))


def without(*commands: Command) -> tuple[str, ...]:
    """What runs an agent on a kernel whose bpf(2) lacks some commands."""
    numbers = ",".join(str(int(command)) for command in commands)
    return (sys.executable, str(Path(__file__).with_name("without.py")), numbers)


def test_a_kernel_without_maps_is_named_at_the_start(config: Path) -> None:
    with bpffs.mounted(config.parent / "bpf"):
        said = refused(start(config, *without(Command.MAP_CREATE)))
    assert "kernel" in said
    assert "ringbuf (since Linux 5.8)" in said


def test_a_kernel_that_lacks_what_is_needed_is_named_in_the_status() -> None:
    node = Node(octet=116, policy="none", before=without(Command.PROG_LOAD))
    try:
        node.start(wait=False)

        def reasons() -> str:
            with suppress(ApiError, OSError):
                return str(node.api("/status")["reasons"].get("cni", ""))
            return ""

        wait_for("the status names the feature", lambda: "tc_program (since Linux 4.1)" in reasons())
        assert not node.socket.exists(), "no runtime is told that the node works"
    finally:
        node.close()


def test_a_kernel_without_tcx_serves_by_the_older_way() -> None:
    node = Node(octet=117, before=without(Command.LINK_CREATE))
    try:
        node.start()
        assert " 0% packet loss" in node.host("ping", "-c1", "-W2", node.add().addresses[1])
    finally:
        node.close()
