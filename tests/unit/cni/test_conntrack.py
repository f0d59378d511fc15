"""Which conntrack entries are over, and how records are shown."""

from __future__ import annotations

import numpy as np
import pytest
from ciliate.api.routes import ApiError
from ciliate.model.base import pack_address
from ciliate.model.conntrack import CONNTRACK_ENTRY, CONNTRACK_KEY, ConntrackState
from ciliate.model.event import EVENT, EventKind
from ciliate_cni import records
from ciliate_cni.conntrack import over, ticks_per_second

HZ = 100
NOW = 10_000_000


@pytest.mark.parametrize(
    ("protocol", "state", "idle", "is_over"),
    [
        (6, ConntrackState.ESTABLISHED, 7999, False),
        (6, ConntrackState.ESTABLISHED, 8001, True),
        (6, ConntrackState.NEW, 61, True),
        (6, ConntrackState.CLOSING, 9, False),
        (6, ConntrackState.CLOSING, 11, True),
        (17, ConntrackState.ESTABLISHED, 59, False),
        (17, ConntrackState.ESTABLISHED, 61, True),
        (6, ConntrackState.CLOSING, -5, False),
    ],
)
def test_a_flow_is_over_when_nothing_came_for_its_timeout(
    protocol: int, state: ConntrackState, idle: int, is_over: bool
) -> None:
    keys, entries = np.zeros(1, CONNTRACK_KEY), np.zeros(1, CONNTRACK_ENTRY)
    keys["protocol"], entries["state"], entries["seen"] = protocol, state, NOW - idle * HZ
    assert over(keys, entries, NOW, HZ).tolist() == [is_over]


def test_the_kernels_clock_has_a_known_rate() -> None:
    assert ticks_per_second() in (100, 250, 300, 1000)


def test_a_flow_is_shown_in_its_original_direction() -> None:
    key, entry = np.zeros((), CONNTRACK_KEY), np.zeros((), CONNTRACK_ENTRY)
    for end, address, port in (("a", "10.0.0.1", 80), ("b", "10.0.0.2", 4000)):
        key[end] = np.frombuffer(pack_address(address), np.uint8)
        key[f"port_{end}"] = port
    key["protocol"], entry["origin"], entry["identity"], entry["tcp_flags"] = 6, 1, (7, 8), (0x12, 0)
    shown = records.flow("conntrack", key, entry)
    assert (shown["source"], shown["source_port"], shown["source_identity"]) == ("10.0.0.2", 4000, 8)
    assert (shown["destination"], shown["destination_port"], shown["destination_identity"]) == ("10.0.0.1", 80, 7)
    assert shown["tcp_flags"] == ["SYN,ACK", ""]


def test_a_drop_says_why_and_numbers_without_names_are_shown_as_such() -> None:
    record = np.zeros((), EVENT)
    record["kind"], record["reason"], record["protocol"], record["point"] = EventKind.DROP, 133, 250, 99
    shown = records.event(record)
    assert (shown["type"], shown["drop_reason"], shown["protocol"], shown["point"]) == (
        "drop",
        "Policy denied",
        "250",
        "99",
    )
    assert shown["source"] == ""


def test_a_monitor_selects_by_type_and_endpoint() -> None:
    batch = np.zeros(4, EVENT)
    batch["kind"] = [1, 5, 5, 1]
    batch["source_endpoint"] = [1, 1, 2, 3]
    batch["destination_endpoint"] = [2, 3, 1, 0]
    assert records.selection({})(batch).all()
    assert records.selection({"type": "drop"})(batch).tolist() == [True, False, False, True]
    assert records.selection({"related": "1"})(batch).tolist() == [True, True, True, False]
    assert records.selection({"from": "1", "to": "3"})(batch).tolist() == [False, True, False, False]
    with pytest.raises(ApiError, match="known are drop"):
        records.selection({"type": "all"})
    with pytest.raises(ApiError, match="endpoint's id"):
        records.selection({"from": "x"})
