"""Which node gets which range: the pure part, against properties that must always hold."""

from __future__ import annotations

import ipaddress
from itertools import combinations

from ciliate_ipam.assignment import NodeWish, assign
from ciliate_ipam.config import IpamSection, cluster_pools
from hypothesis import given
from hypothesis import strategies as st

POOLS = cluster_pools(
    IpamSection(
        cluster_pool_ipv4_cidr="10.0.0.0/26 10.1.0.0/27",
        cluster_pool_ipv4_mask_size=28,
        cluster_pool_ipv6_cidr="fd00::/120",
        cluster_pool_ipv6_mask_size=124,
    )
)


def test_every_node_gets_one_range_a_family() -> None:
    result = assign(POOLS, {}, {"a": NodeWish([]), "b": NodeWish([])})
    assert result.cidrs == {"a": ["10.0.0.0/28", "fd00::/124"], "b": ["10.0.0.16/28", "fd00::10/124"]}
    assert result.errors == {"a": "", "b": ""}


def test_what_the_ledger_or_the_node_has_is_kept() -> None:
    ledger = {"10.0.0.32/28": "a", "10.0.0.0/28": "gone"}
    result = assign(POOLS, ledger, {"a": NodeWish([]), "b": NodeWish(["10.0.0.16/28", "fd00::f0/124"])})
    assert result.cidrs["a"] == ["10.0.0.32/28", "fd00::/124"]
    assert result.cidrs["b"] == ["10.0.0.16/28", "fd00::f0/124"]
    assert "10.0.0.0/28" not in result.ledger


def test_a_range_that_another_node_has_is_an_error_and_nothing_is_changed() -> None:
    result = assign(POOLS, {"10.0.0.0/28": "b"}, {"a": NodeWish(["10.0.0.0/27", "fd00::/124"]), "b": NodeWish([])})
    assert "10.0.0.0/27 overlaps with 10.0.0.0/28, which node b has" in result.errors["a"]
    assert "a" not in result.cidrs
    malformed = assign(POOLS, {}, {"a": NodeWish(["10.0.0.1/24"])})
    assert "spec.ipam.podCIDRs" in malformed.errors["a"]


def test_ranges_avoid_networks_and_node_addresses() -> None:
    nodes = {"a": NodeWish([], ["10.0.0.17"]), "b": NodeWish([], ["fd00::5"])}
    result = assign(POOLS, {}, nodes, [ipaddress.ip_network("10.0.0.0/29")])
    assert result.cidrs == {"a": ["10.0.0.32/28", "fd00::10/124"], "b": ["10.0.0.48/28", "fd00::20/124"]}


def test_an_empty_pool_is_named_and_the_other_family_is_served() -> None:
    nodes = {f"n{n}": NodeWish([]) for n in range(7)}
    result = assign(POOLS, {}, nodes)
    assert "no IPv4 range of /28 is free in the pools 10.0.0.0/26, 10.1.0.0/27: 6 are in use" in result.errors["n6"]
    assert result.cidrs["n6"] == ["fd00::60/124"]


WISHES = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.builds(
        NodeWish,
        st.lists(
            st.sampled_from(["10.0.0.0/28", "10.0.0.0/27", "10.0.0.48/28", "fd00::/124", "fd00::40/122"]), max_size=2
        ),
        st.lists(st.sampled_from(["10.0.0.20", "192.0.2.1"]), max_size=1),
        st.booleans(),
    ),
)


@given(WISHES, WISHES)
def test_no_two_nodes_ever_overlap(first: dict[str, NodeWish], then: dict[str, NodeWish]) -> None:
    before = assign(POOLS, {}, first)
    after = assign(POOLS, before.ledger, then)
    for one, other in combinations(after.ledger, 2):
        a, b = ipaddress.ip_network(one), ipaddress.ip_network(other)
        assert a.version != b.version or not a.overlaps(b)
    for name, cidrs in after.cidrs.items():
        assert all(after.ledger[cidr] == name for cidr in cidrs)
        if not after.errors[name]:
            assert {ipaddress.ip_network(cidr).version for cidr in cidrs} == {4, 6}
    for cidr, name in before.ledger.items():
        assert name not in then or after.ledger[cidr] == name, "a node keeps what it has"
