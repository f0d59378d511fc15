"""A stranger's program at from_pod on a live node: comes, goes, is replaced and refused; no other packet is lost."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ciliate.api.client import Client
from ciliate.api.routes import ApiError

from tests.bpf.datapath.conftest import BPF
from tests.bpf.datapath.strangers import compile_stranger, compile_strangers
from tests.node.cni_node import ROOT, Node, Pod, require_root, wait_for
from tests.node.steady import undisturbed

DENIED = 7999
REFUSED = """#include <ciliate/plugin.h>
SEC("tc") int refused(struct __sk_buff *skb) { BODY }
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_strangers(tmp_path_factory.mktemp("strangers"), BPF)


@pytest.fixture
def node() -> Iterator[Node]:
    require_root()
    node = Node(octet=122)
    try:
        node.start()
        yield node
    finally:
        node.close()


class Process:
    """The plugin `stranger` in a process of its own."""

    def __init__(self, node: Node, path: Path, program: str, denied_port: int = DENIED) -> None:
        command = [sys.executable, "-m", "tests.node.stranger", str(node.config), f"{path}:{program}:50:{denied_port}"]
        self._socket = node.run_dir / "stranger.sock"
        self._popen = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def reasons(self) -> list[str]:
        """What is wrong with the plugin; [""] if that can't be asked yet."""
        try:
            with Client(self._socket) as client:
                found: list[str] = client.get("/status")["degraded"].get("stranger", [])
                return found
        except (ApiError, OSError):
            return [""]

    def end(self, number: int = signal.SIGKILL) -> None:
        self._popen.send_signal(number)
        self._popen.wait(30)


def reaches(client: Pod, server: Pod, port: int) -> bool:
    """Whether a SYN to a port where nobody listens is answered."""
    code = (
        f"import socket; s = socket.socket(); s.settimeout(.5); print(s.connect_ex(('{server.addresses[0]}', {port})))"
    )
    return client.run(sys.executable, "-c", code).strip() == "111"


def test_a_program_comes_and_goes_with_its_process_and_nothing_else_is_lost(node: Node, objects: Path) -> None:
    client, server = node.add(), node.add()
    with undisturbed(client, server):
        process = Process(node, objects / "denier.bpf.o", "deny_port")
        try:
            wait_for("the plugin is ready", lambda: process.reasons() == [])
            assert not reaches(client, server, DENIED)
            assert reaches(client, server, DENIED + 1)
            (row,) = node.api("/points")
            assert (row["plugin"], row["program"], row["slot"]) == ("stranger", "deny_port", 0)
            assert row["drops"] >= 1 and row["packets"] > 100 and row["samples"] >= 1
            metrics = node.api("/metrics")
            assert 'ciliate_point_drops_total{plugin="stranger",point="from_pod",program="deny_port"}' in metrics
            assert 'ciliate_point_sampled_seconds_total{plugin="stranger"' in metrics
        finally:
            process.end()
        wait_for("its slot is empty", lambda: node.api("/points") == [])
        assert reaches(client, server, DENIED)


def test_a_new_process_takes_its_slot_over_and_the_agents_restart_leaves_it(node: Node, objects: Path) -> None:
    client, server = node.add(), node.add()
    with undisturbed(client, server):
        first = Process(node, objects / "denier.bpf.o", "deny_port")
        wait_for("the plugin is ready", lambda: first.reasons() == [])
        node.kill()
        assert not reaches(client, server, DENIED)
        node.start()
        assert not reaches(client, server, DENIED)
        first.end()
        second = Process(node, objects / "denier.bpf.o", "deny_port", DENIED + 1)
        try:
            wait_for("the new program is there", lambda: reaches(client, server, DENIED))
            assert not reaches(client, server, DENIED + 1)
        finally:
            second.end()


def test_an_offer_that_somebody_removes_is_made_anew(node: Node, objects: Path) -> None:
    client, server = node.add(), node.add()
    process = Process(node, objects / "denier.bpf.o", "deny_port")
    try:
        wait_for("the plugin is ready", lambda: process.reasons() == [])
        folder = node.bpf / "ciliate" / "points" / "from_pod" / "stranger:deny_port"
        shutil.rmtree(folder)
        wait_for("it is offered again", lambda: (folder / "answer").is_symlink())
        wait_for("the program drops", lambda: not reaches(client, server, DENIED))
        wait_for("the plugin is ready", lambda: process.reasons() == [])
    finally:
        process.end()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return *(volatile int *)(long)skb->data;", "the verifier refused it"),
        ("return bpf_redirect(1, 0);", "may not call bpf_redirect"),
    ],
    ids=["the verifier's no", "a redirect"],
)
def test_a_refused_program_is_left_out_and_its_plugin_says_why(
    node: Node, tmp_path: Path, body: str, reason: str
) -> None:
    source = tmp_path / "refused.bpf.c"
    source.write_text(REFUSED.replace("BODY", body))
    path = compile_stranger(tmp_path / "refused.bpf.o", BPF, source)
    client, server = node.add(), node.add()
    with undisturbed(client, server):
        process = Process(node, path, "refused")
        try:
            wait_for("the plugin says why", lambda: reason in "; ".join(process.reasons()))
        finally:
            process.end()
    assert node.api("/points") == [] and node.api("/status")["ready"]


def test_in_the_agents_own_process_it_outlives_the_agent_and_goes_when_it_is_not_enabled(
    node: Node, objects: Path
) -> None:
    client, server = node.add(), node.add()
    word = f"{objects / 'denier.bpf.o'}:deny_port:5:{DENIED}"
    with undisturbed(client, server):
        node.kill(signal.SIGTERM)
        node.words = [word]
        node.start()
        wait_for("the slot is filled", lambda: not reaches(client, server, DENIED))
        node.kill()
        assert not reaches(client, server, DENIED)
        node.start()
        assert not reaches(client, server, DENIED)
        node.kill(signal.SIGTERM)
        node.words = []
        node.start()
        wait_for("the slot is emptied", lambda: reaches(client, server, DENIED))
    assert node.api("/points") == []
