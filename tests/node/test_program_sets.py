"""Program sets exchanged on a live node: upgraded, rolled back, refused, with maps of other layouts; nothing is lost.

Pods with even ids may only answer here, so that a flow which is forgotten is a flow that stops.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ciliate.api.routes import ApiError
from ciliate.programs.attach import pinned_tcx

from tests.bpf.core.conftest import compile_object
from tests.bpf.datapath.conftest import BPF
from tests.node.cni_node import Node, Pod, require_root, wait_for
from tests.node.steady import undisturbed

Build = Callable[[str, str, str], Path]


@pytest.fixture
def node() -> Iterator[Node]:
    require_root()
    node = Node(octet=121, words=["one-way"])
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """The data path as another version of it: one text in node.bpf.c replaced. The folder that the object is in."""

    def made(name: str, old: str, new: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(BPF / "include", folder / "include")
        source = (BPF / "node.bpf.c").read_text()
        assert old in source
        (folder / "node.bpf.c").write_text(source.replace(old, new, 1))
        compile_object(folder / "node.bpf.c", folder / "node.bpf.o", f"-I{folder / 'include'}", "-std=gnu11")
        return folder

    return made


def pods(node: Node) -> tuple[Pod, Pod]:
    """A client with an odd id and a server with an even one."""
    made: dict[int, Pod] = {}
    while not made.keys() >= {0, 1}:
        pod = node.add()
        number = next(e["id"] for e in node.endpoints() if e["container_id"] == pod.container_id)
        made.setdefault(number % 2, pod)
    wait_for("pods are on tcx", lambda: all(e["attached"] == "tcx" for e in node.endpoints()))
    return made[1], made[0]


def restart(node: Node, folder: Path | None = None, *words: str, wait: bool = True) -> None:
    """Another version of the agent takes over."""
    node.kill(signal.SIGTERM)
    node.settings = {"cni": {"programs": str(folder)} if folder else {}}
    node.write_settings()
    node.words = ["one-way", *words]
    node.start(wait=wait)


def attached(node: Node) -> set[str]:
    """The programs of all pods, by id: those of tc's filters and those of tcx links."""
    shown = [node.host("tc", "filter", "show", "dev", name, "ingress") for name in node.links()]
    found = {line.split(" id ")[1].split()[0] for text in shown for line in text.splitlines() if " id " in line}
    for pin in (node.bpf / "ciliate" / "links").iterdir():
        link = pinned_tcx(pin) if pin.name.isdigit() else None
        if link is not None:
            found.add(str(link.info().program_id))
            link.close()
    return found


def test_an_upgrade_and_a_rollback_lose_nothing(node: Node, build: Build) -> None:
    client, server = pods(node)
    other = build("other", "char _license", "const volatile int version = 2;\nchar _license")
    first = attached(node)
    with undisturbed(client, server):
        restart(node, other)
        second = attached(node)
        restart(node)
        third = attached(node)
    assert len(first) == len(second) == len(third) == 1
    assert first != second != third
    assert node.log.read_text().count("programs replaced") == 2


def test_a_conntrack_of_another_size_is_read_through_and_carried_over(node: Node) -> None:
    client, server = pods(node)
    with undisturbed(client, server):
        restart(node, None, "conntrack=3000")
        assert "maps exchanged" in node.log.read_text()
        size = {row["name"]: row["max_entries"] for row in node.api("/maps")}["conntrack"]
        assert size == 3000
        restart(node)
    log = node.log.read_text()
    assert log.count("maps exchanged") == 2 and "flows_lost=0" in log
    assert list((node.bpf / "ciliate" / "old").iterdir()) == list((node.bpf / "ciliate" / "new").iterdir()) == []
    assert len(attached(node)) == 1


def test_maps_that_user_space_writes_are_filled_before_programs_use_them(node: Node) -> None:
    client, server = pods(node)
    with undisturbed(client, server):
        restart(node, None, "policy=5000", "ipcache=7000", "endpoint_ips=40000", "conntrack=9000")
    assert "maps exchanged" in node.log.read_text()
    node.add()


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        (
            "refused", "	receive(skb, packet);\n	packet->path = PATH_HOST;",
            "	receive(skb, packet);\n	packet->path = *(volatile int *)(long)skb->data;", "the verifier refused it",
        ),
        ("failing", "packet->ether_type != ETH_P_IPV6)\n		return TC_ACT_OK;",
         "packet->ether_type != ETH_P_IPV6)\n		return TC_ACT_SHOT;", "from_host answers 2 to ARP of the host"),
    ],
    ids=["the verifier's no", "a failing self-test"],
)  # fmt: skip
@pytest.mark.parametrize("words", [(), ("conntrack=3000",)], ids=["same maps", "another conntrack"])
def test_a_set_that_is_refused_leaves_the_old_one_and_says_so(
    node: Node, build: Build, name: str, old: str, new: str, reason: str, words: tuple[str, ...]
) -> None:
    client, server = pods(node)
    bad = build(name, old, new)
    before = attached(node)
    with undisturbed(client, server):
        restart(node, bad, *words, wait=False)
        wait_for("the agent says so", lambda: reason in said(node))
        wait_for("pods are served", node.socket.exists)
        assert attached(node) == before
        fresh = node.add()
    assert "goes on with the older set" in said(node)
    assert " 0% packet loss" in client.run("ping", "-c1", "-W2", fresh.addresses[0])
    size = {row["name"]: row["max_entries"] for row in node.api("/maps")}["conntrack"]
    assert size in (3000, 524_288)
    with undisturbed(client, server):
        restart(node)
    assert said(node) == ""
    assert len(attached(node)) == 1


def test_a_refused_set_with_policy_maps_of_another_layout_lets_no_new_pod_in(node: Node, build: Build) -> None:
    client, server = pods(node)
    bad = build(
        "bad", "packet->ether_type != ETH_P_IPV6)\n		return TC_ACT_OK;", "1)\n		return TC_ACT_SHOT;"
    )
    with undisturbed(client, server):
        restart(node, bad, "policy=5000", wait=False)
        wait_for("the agent says so", lambda: "the older programs' maps policy have another layout" in said(node))
        outcome = node.call("ADD", node.pod())
        assert (outcome.status, outcome.json["code"]) == (1, 11)
    restart(node)
    with undisturbed(client, server):
        node.add()


def said(node: Node) -> str:
    """What the plugin cni says against its being ready."""
    try:
        return "; ".join(node.api("/status")["reasons"].get("cni", []))
    except (ApiError, OSError):
        return ""
