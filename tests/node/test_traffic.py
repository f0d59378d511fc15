"""The traffic checker finds what is lost, late or judged by an old rule, and nothing else."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from ciliate.kernel import bpffs, syscall
from ciliate.maps.map import Map
from ciliate.maps.spec import MapKind, MapSpec

from tests.bench import build, spaces
from tests.node.accounting import Outcome, account, wrong_connections
from tests.node.flips import FLIP, FLOWS, HOLD_NS, Mode, flip, judge
from tests.node.traffic import PORT, Recorded, Traffic

RULE = MapSpec("rule", MapKind.ARRAY, np.dtype("<u4"), np.dtype("<u8"), 1, "Index 0 to the rule.")
KINDS = {Mode.ALLOW_ONE: 1, Mode.DENY_ONE: 2}


@pytest.fixture(scope="module")
def made() -> Iterator[spaces.Spaces]:
    if os.geteuid() != 0:
        pytest.skip("makes network namespaces: run as root")
    made = spaces.Spaces()
    yield made
    made.close()


@pytest.fixture(scope="module")
def link(made: spaces.Spaces) -> spaces.Link:
    return spaces.forward(made, 211)


@pytest.fixture(scope="module")
def rule(link: spaces.Link) -> Iterator[Map]:
    """The rule that judges what the client's pod sends."""
    host = link.client.name.removesuffix("-c") + "-h"
    program = build.bpf_object(Path(__file__).parent / "programs/gate.bpf.c")
    folder = Path("/sys/fs/bpf") / spaces.PREFIX
    bpffs.ensure_folder(folder)
    spaces.run(["bpftool", "prog", "load", str(program), str(folder / "gate"), "pinmaps", str(folder)])
    inside = ["nsenter", f"--net={spaces.NETNS / host}"]  # `tc -n` would hide bpffs behind a new /sys
    attach = [*inside, "tc", "filter", "add", "dev", f"h{spaces.FORWARD_INDEXES[0]}", "ingress", "pref", "1"]
    spaces.run([*attach, "bpf", "direct-action", "pinned", str(folder / "gate")])
    opened = Map(RULE, syscall.get_pinned(folder / "rule"))
    yield opened
    opened.update(0, 0)
    opened.close()
    shutil.rmtree(folder)


def setter(rule: Map, mode: Mode) -> Callable[[int], None]:
    """Change k: the rule names flow k % FLOWS."""
    return lambda k: rule.update(0, KINDS[mode] << 32 | PORT + k % FLOWS)


def flipped(link: spaces.Link, folder: Path, apply: Callable[[int], None], count: int) -> tuple[np.ndarray, Recorded]:
    """Flip under traffic from two CPUs."""
    with Traffic(folder) as traffic:
        traffic.serve(link.servers, 4, ports=FLOWS)
        for cpu in range(2):
            traffic.send(link.client, link.addresses[4][0], ports=FLOWS, flows=FLOWS, rate=10_000, cpu=cpu)
        flips = flip(apply, count, HOLD_NS)
        return flips, traffic.stop()


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
def test_a_rule_that_is_changed_at_once_judges_no_packet_wrongly(
    link: spaces.Link, rule: Map, tmp_path: Path, mode: Mode
) -> None:
    flips, recorded = flipped(link, tmp_path, setter(rule, mode), 5000)
    result = judge(mode, flips, recorded.sent, recorded.received, FLOWS)
    print(result)
    assert len(result.wrong) == 0, str(result)
    assert result.decisive > 1000, str(result)


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
def test_a_rule_that_is_reported_too_early_is_found(link: spaces.Link, rule: Map, tmp_path: Path, mode: Mode) -> None:
    change = setter(rule, mode)

    def too_late(k: int) -> None:
        change(max(k - 20, 0))

    flips, recorded = flipped(link, tmp_path, too_late, 5000)
    result = judge(mode, flips, recorded.sent, recorded.received, FLOWS)
    assert len(result.wrong) > 100, str(result)
    assert result.worst_us > 1000, str(result)


@pytest.mark.parametrize("family", [4, 6])
def test_every_packet_of_a_sound_path_is_accounted_for(link: spaces.Link, tmp_path: Path, family: int) -> None:
    with Traffic(tmp_path) as traffic:
        traffic.serve(link.servers, family, ports=3, echo=True)
        traffic.send(link.client, link.addresses[family][0], ports=3, flows=6, rate=5000, echoes=True, seconds=0.5)
        traffic.connect(link.client, link.addresses[family], ports=3, rate=100, seconds=0.5)
        recorded = traffic.wait()
    accounts = account(recorded.sent, recorded.received)
    assert [one.flow for one in accounts] == list(range(6))
    assert sum(one.sent for one in accounts) == len(recorded.sent) > 1000
    assert all(one.lost == one.failed == one.duplicated == 0 for one in accounts)
    assert len(recorded.echoed) == len(recorded.sent)
    assert len(recorded.connections) > 30
    assert len(wrong_connections(recorded.connections, [True] * 3)) == 0


def test_a_denied_flow_is_lost_and_a_denied_connection_times_out(link: spaces.Link, rule: Map, tmp_path: Path) -> None:
    rule.update(0, KINDS[Mode.DENY_ONE] << 32 | PORT + 1)
    with Traffic(tmp_path) as traffic:
        traffic.serve(link.servers, 4, ports=2)
        traffic.send(link.client, link.addresses[4][0], ports=2, flows=2, rate=1000, seconds=0.3)
        traffic.connect(link.client, ["10.211.0.77"], rate=20, limit_ms=200, seconds=0.3)
        recorded = traffic.wait()
    rule.update(0, 0)
    open_flow, denied_flow = account(recorded.sent, recorded.received)
    assert open_flow.lost == 0
    assert denied_flow.received == 0
    assert denied_flow.lost == denied_flow.sent
    assert denied_flow.longest_gap_ms > 200
    assert set(recorded.connections["outcome"]) == {Outcome.TIMED_OUT}
    assert len(wrong_connections(recorded.connections, [False])) == 0


def test_a_flow_that_nobody_sent_is_refused(link: spaces.Link, tmp_path: Path) -> None:
    with Traffic(tmp_path) as traffic:
        traffic.serve(link.servers, 4)
        traffic.send(link.client, link.addresses[4][0], seconds=0.1)
        recorded = traffic.wait()
    with pytest.raises(ValueError, match="nobody sent"):
        account(recorded.sent[:-1], recorded.received)


def test_flips_are_timed_and_held() -> None:
    seen: list[int] = []
    flips = flip(seen.append, 20, 200_000, first=5)
    assert flips.dtype == FLIP
    assert seen == list(range(5, 25))
    assert (flips["begun"][1:] - flips["reported"][:-1] >= 200_000).all()
    assert flips["reported"][-1] <= time.monotonic_ns()
