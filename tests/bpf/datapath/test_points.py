"""The point from_pod: a stranger's programs see each packet once, may drop it, and can do nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ciliate.maps.ownership import MapOwnedError
from ciliate.model.event import SourceFile
from ciliate.model.points import SLOTS
from ciliate.model.reasons import DropReason
from ciliate.programs.elf import LoadError, VerifierError
from ciliate_cni import points as keeper
from ciliate_cni.points import Points
from scapy.layers.l2 import ARP, Ether

from tests.bpf.datapath.conftest import BPF
from tests.bpf.datapath.families import FAMILIES, Family
from tests.bpf.datapath.node import DENY_ALL, PODS, Node, packed
from tests.bpf.datapath.strangers import SOURCES, Strangers, compile_stranger, compile_strangers
from tests.bpf.datapath.test_flows import connect

A, B, C = PODS[:3]
PUBLIC = '#include <ciliate/plugin.h>\nchar _license[] SEC("license") = "GPL";\n'


@pytest.fixture(scope="package")
def stranger_objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of strangers' programs, compiled."""
    return compile_strangers(tmp_path_factory.mktemp("strangers"), BPF)


@pytest.fixture
def points(node: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[Points]:
    """The keeper, which forgets a withdrawn offer at once; afterwards the point is empty."""
    monkeypatch.setattr(keeper, "GRACE", 0.0)
    kept = Points(node.registry)
    yield kept
    shutil.rmtree(node.registry.root / "points", ignore_errors=True)
    kept.look()


@pytest.fixture
def strangers(node: Node, points: Points, stranger_objects: Path) -> Iterator[Strangers]:
    """Plugins that offer programs."""
    made = Strangers(node.registry.root, stranger_objects)
    yield made
    made.close()
    (node.registry.folder / "stranger_seen").unlink(missing_ok=True)


def names(points: Points) -> list[str]:
    return [offer.folder.name for offer in points.slots]


def test_a_program_sees_a_packet_as_it_was_parsed(
    node: Node, family: Family, points: Points, strangers: Strangers
) -> None:
    held = strangers.offer("note")
    assert points.look()
    assert held.answer() == "slot 0"
    sent = node.send(A, family.tcp(A, B, flags="S"))
    assert sent.to == B.id
    seen = strangers.seen()
    packet = seen["last"]
    assert seen["packets"] == 1
    assert (packet["version"], packet["family"], packet["protocol"], packet["direction"]) == (1, family.version, 6, 1)
    assert (packet["endpoint"], packet["identity"], packet["tcp_flags"]) == (A.id, A.identity, 2)
    assert (packet["source_port"], packet["destination_port"]) == (40000, 80)
    addresses = (packet["source"].tobytes(), packet["destination"].tobytes())
    assert addresses == (packed(family.of(A)), packed(family.of(B)))
    assert packet["length"] == len(bytes(sent.frame))
    assert packet["transport"] == (34 if family.version == 4 else 54)


def test_each_packet_of_a_flow_is_seen_and_no_answer_to_the_gateway_is(
    node: Node, family: Family, points: Points, strangers: Strangers
) -> None:
    strangers.offer("note")
    points.look()
    connect(node, family)
    node.send(A, Ether(src=A.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc=A.ipv4, pdst="169.254.1.1"))
    node.send(A, family.ip(C, B))
    assert node.send_from_host(family.udp(family.host, A)).to == A.id
    (row,) = points.rows()
    assert (row["packets"], row["drops"], row["invalid"], row["missed"]) == (3, 0, 0, 0)


def test_the_time_of_one_packet_in_1024_is_taken(node: Node, points: Points, strangers: Strangers) -> None:
    strangers.offer("deny_port", denied_port=80)
    points.look()
    node.send(A, FAMILIES[0].tcp(A, B), repeat=4096)
    (row,) = points.rows()
    assert (row["packets"], row["drops"], row["samples"]) == (4096, 4096, 4)
    assert 0 < row["nanoseconds"] < 100_000


def test_a_drop_is_told_with_reason_and_slot(node: Node, family: Family, points: Points, strangers: Strangers) -> None:
    strangers.offer("note", plugin="first", order=1)
    strangers.offer("deny_port", order=2, denied_port=23)
    points.look()
    before = node.drops()[DropReason.PLUGIN]
    assert node.send(A, family.tcp(A, B, dport=80)).to == B.id
    dropped = node.send(A, family.tcp(A, B, dport=23))
    assert (dropped.to, dropped.reason) == (None, DropReason.PLUGIN)
    assert dropped.event["plugin_slot"] == 2 and dropped.event["file"] == SourceFile.POINT
    assert points.name_of(2) == "stranger:deny_port"
    assert node.drops()[DropReason.PLUGIN] == before + 1
    assert [row["drops"] for row in points.rows()] == [0, 1]


@pytest.mark.parametrize("answer", [1, 3, 7, -1, 1 << 20])
def test_an_answer_that_is_none_counts_as_continue(
    node: Node, points: Points, strangers: Strangers, answer: int
) -> None:
    strangers.offer("note", answer=answer)
    points.look()
    assert node.send(A, FAMILIES[0].tcp(A, B)).to == B.id
    (row,) = points.rows()
    assert (row["packets"], row["invalid"], row["drops"]) == (1, 1, 0)


def test_a_programs_continue_does_not_overrule_policy(
    node: Node, family: Family, points: Points, strangers: Strangers
) -> None:
    strangers.offer("note")
    points.look()
    node.apply(A, egress=DENY_ALL)
    assert node.send(A, family.tcp(A, B)).reason == DropReason.POLICY_DENIED


def test_programs_run_in_their_order_and_the_first_drop_ends_it(
    node: Node, family: Family, points: Points, strangers: Strangers
) -> None:
    strangers.offer("note", plugin="late", order=9)
    strangers.offer("deny_port", plugin="early", order=3, denied_port=80)
    points.look()
    assert names(points) == ["early:deny_port", "late:note"]
    node.send(A, family.tcp(A, B))
    assert {row["plugin"]: row["packets"] for row in points.rows()} == {"early": 1, "late": 0}


def test_eight_programs_fit_and_a_ninth_is_left_out_by_name(
    node: Node, family: Family, points: Points, strangers: Strangers
) -> None:
    for number in range(SLOTS + 1):
        strangers.offer("deny_port", plugin=f"p{number}", order=number, denied_port=1000 + number)
    points.look()
    assert names(points) == [f"p{number}:deny_port" for number in range(SLOTS)]
    assert "all 8 slots of from_pod are taken" in strangers.offers["p8:deny_port"].answer()
    assert node.send(A, family.tcp(A, B, dport=1007)).event["plugin_slot"] == 8
    assert node.send(A, family.tcp(A, B, dport=1008)).to == B.id
    strangers.withdraw("p0:deny_port")
    points.look()
    assert names(points) == [f"p{number}:deny_port" for number in range(1, SLOTS + 1)]
    assert node.send(A, family.tcp(A, B, dport=1008)).event["plugin_slot"] == 8
    assert node.send(A, family.tcp(A, B, dport=1000)).to == B.id


def test_an_offer_ends_with_its_maker_and_is_replaced_in_place(
    node: Node, family: Family, points: Points, strangers: Strangers
) -> None:
    strangers.offer("deny_port", denied_port=80)
    points.look()
    assert node.send(A, family.tcp(A, B, dport=80)).to is None
    strangers.offer("deny_port", denied_port=81)
    assert points.look()
    assert node.send(A, family.tcp(A, B, dport=80)).to == B.id
    assert node.send(A, family.tcp(A, B, dport=81)).to is None
    strangers.withdraw("stranger:deny_port")
    points.look()
    assert names(points) == [] and node.switches[0] >> 8 == 0
    assert node.send(A, family.tcp(A, B, dport=81)).to == B.id
    assert not list((node.registry.root / "points" / "from_pod").iterdir())


def test_a_keeper_that_starts_anew_keeps_slots_until_their_makers_are_back(
    node: Node, family: Family, points: Points, strangers: Strangers, monkeypatch: pytest.MonkeyPatch
) -> None:
    strangers.offer("deny_port", denied_port=80)
    points.look()
    strangers.withdraw("stranger:deny_port")
    monkeypatch.setattr(keeper, "GRACE", 60.0)
    again = Points(node.registry)
    again.look()
    assert node.send(A, family.tcp(A, B, dport=80)).reason == DropReason.PLUGIN
    strangers.offer("deny_port", denied_port=80)
    again.look()
    assert node.send(A, family.tcp(A, B, dport=80)).reason == DropReason.PLUGIN


def test_an_empty_slot_that_the_mask_names_drops_nothing(
    node: Node, family: Family, points: Points, strangers: Strangers
) -> None:
    strangers.offer("note")
    points.look()
    node.map("from_pod_slots").delete(0)
    assert node.send(A, family.tcp(A, B)).to == B.id
    assert points.rows()[0]["missed"] == 1
    assert points.look() is False  # nothing changed, but the slot is filled again
    node.send(A, family.tcp(A, B))
    assert points.rows()[0]["missed"] == 1


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        ("return bpf_redirect(1, 0);", LoadError, "may not call bpf_redirect"),
        ("char x = 1; return bpf_skb_store_bytes(skb, 0, &x, 1, 0);", LoadError, "may not call bpf_skb_store_bytes"),
        ("return *(volatile int *)(long)skb->data;", VerifierError, "invalid access to packet"),
    ],
    ids=["redirects", "writes", "the verifier's no"],
)
def test_a_program_that_does_more_is_refused_and_named(
    strangers: Strangers, points: Points, tmp_path: Path, body: str, error: type[Exception], words: str
) -> None:
    source = tmp_path / "bad.bpf.c"
    source.write_text(f'{PUBLIC}SEC("tc") int bad(struct __sk_buff *skb) {{ {body} }}\n')
    path = compile_stranger(tmp_path / "bad.bpf.o", BPF, source)
    with pytest.raises(error, match=words):
        strangers.offer("bad", path=path)
    assert points.look() is False and points.rows() == []


def test_a_program_that_tail_calls_or_takes_anothers_map_is_refused(
    strangers: Strangers, node: Node, tmp_path: Path
) -> None:
    source = tmp_path / "calls.bpf.c"
    source.write_text(
        f"{PUBLIC}struct {{ __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __type(key, __u32); __type(value, __u32);"
        ' __uint(max_entries, 1); } own SEC(".maps");\n'
        'SEC("tc") int calls(struct __sk_buff *skb) { bpf_tail_call(skb, &own, 0); return CILIATE_CONTINUE; }\n'
    )
    with pytest.raises(LoadError, match="may not call bpf_tail_call"):
        strangers.offer("calls", path=compile_stranger(tmp_path / "calls.bpf.o", BPF, source))
    (node.registry.folder / "own").unlink()
    source.write_text(
        f"{PUBLIC}struct {{ __uint(type, BPF_MAP_TYPE_HASH); __type(key, __u32); __type(value, __u32);"
        ' __uint(max_entries, 1); } conntrack SEC(".maps");\n'
        'SEC("tc") int takes(struct __sk_buff *skb)'
        " { __u32 key = 0; return !!bpf_map_lookup_elem(&conntrack, &key); }\n"
    )
    with pytest.raises(MapOwnedError, match="map conntrack is owned by"):
        strangers.offer("takes", path=compile_stranger(tmp_path / "takes.bpf.o", BPF, source))


def test_the_public_header_needs_no_other_of_ours(tmp_path: Path) -> None:
    alone = tmp_path / "include" / "ciliate"
    alone.mkdir(parents=True)
    shutil.copy(BPF / "include" / "ciliate" / "plugin.h", alone)
    compile_stranger(tmp_path / "alone.bpf.o", tmp_path, SOURCES / "stranger.bpf.c")
