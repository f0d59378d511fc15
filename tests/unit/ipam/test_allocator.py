"""Giving out addresses over real tables: durability, reuse, exhaustion, ranges that come and go."""

from __future__ import annotations

import ipaddress
import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ciliate.model.ipam import ADDRESSES, NODE_RANGES, Allocation, ExhaustedError, IpamError, NotReadyError, PodRange
from ciliate.tables.file import TableFile
from ciliate.tables.hub import Tables
from ciliate_ipam.allocator import Allocator

V4, V6 = PodRange(cidr="10.9.0.0/29", pool="p4"), PodRange(cidr="fd09::/120", pool="p6")


@dataclass
class Life:
    """One life of an agent over the same file; `now` is its clock."""

    path: Path
    families: tuple[int, ...] = (4, 6)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.tables = Tables(TableFile(self.path))
        addresses, ranges = self.tables.writer(ADDRESSES, "ipam"), self.tables.writer(NODE_RANGES, "ipam")
        self.rows = addresses.rows
        self.ipam = Allocator(addresses, ranges, self.tables.commit, self.families, 60, lambda: self.now)

    def again(self) -> Life:
        """Killed and started: what was not committed is gone."""
        return Life(self.path, self.families, self.now)


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """An agent with one small range of each family."""
    life = Life(tmp_path / "tables.sqlite")
    life.ipam.adopt([V4, V6])
    yield life
    life.tables.close()


def test_the_first_address_is_the_routers_and_the_outer_two_are_unused(life: Life) -> None:
    assert [(r.cidr, r.router) for r in life.ipam.ranges()] == [("10.9.0.0/29", "10.9.0.1"), ("fd09::/120", "fd09::1")]
    given = [life.ipam.allocate(f"default/p{n}", f"c{n}/eth0") for n in range(5)]
    assert [a.ipv4 for a in given] == [f"10.9.0.{n}" for n in range(2, 7)]
    assert [a.ipv6 for a in given] == [f"fd09::{n}" for n in range(2, 7)]


def test_an_attachment_keeps_its_addresses(life: Life) -> None:
    first = life.ipam.allocate("default/web", "c/eth0")
    assert life.ipam.allocate("default/web", "c/eth0") == first
    assert life.ipam.attachments() == {"c/eth0": first}
    reborn = life.again()
    assert reborn.ipam.allocate("default/web", "c/eth0") == first
    assert reborn.ipam.ranges() == life.ipam.ranges()
    assert reborn.ipam.allocate("default/api", "d/eth0").ipv4 == "10.9.0.3"


def test_a_claimed_address_is_its_claimants_and_nobody_elses(life: Life) -> None:
    had = Allocation(ipv4="10.9.0.3", ipv6="fd09::3")
    life.ipam.claim("shop/web", "recovered:lxc1/", had)
    assert life.ipam.attachments() == {"recovered:lxc1/": had}
    given = [life.ipam.allocate("shop/db", f"c{number}/eth0") for number in range(3)]
    assert had.ipv4 not in {one.ipv4 for one in given} and had.ipv6 not in {one.ipv6 for one in given}
    life.ipam.claim("shop/web", "c9/eth0", had)
    again = life.again()
    assert "recovered:lxc1/" not in again.ipam.attachments()
    assert again.ipam.allocate("shop/web", "c9/eth0") == had
    again.ipam.release("recovered:lxc1/")
    assert again.ipam.attachments()["c9/eth0"] == had


def test_a_released_address_comes_back_last_and_oldest_first(life: Life) -> None:
    for n in range(3):
        life.ipam.allocate("a/b", f"c{n}/eth0")
    for n in (1, 0):
        life.now += 1
        life.ipam.release(f"c{n}/eth0")
    life.ipam.release("never/eth0")
    order = [life.ipam.allocate("a/b", f"d{n}/eth0").ipv4 for n in range(4)]
    assert order == ["10.9.0.5", "10.9.0.6", "10.9.0.3", "10.9.0.2"]


def test_a_released_address_rests_while_another_range_has_room(life: Life) -> None:
    for n in range(5):
        life.ipam.allocate("a/b", f"c{n}/eth0")
    life.ipam.release("c0/eth0")
    life.ipam.adopt([V4, V6, PodRange(cidr="10.9.1.0/29", pool="p4")])
    life.now += 59
    assert life.ipam.allocate("a/b", "d0/eth0").ipv4 == "10.9.1.2"
    life.now += 1
    assert life.ipam.allocate("a/b", "d1/eth0").ipv4 == "10.9.0.2"


def test_the_rest_is_kept_over_a_restart_and_forgotten_after_it(life: Life) -> None:
    for n in range(3):
        life.ipam.allocate("a/b", f"c{n}/eth0")
    life.ipam.release("c0/eth0")
    reborn = life.again()
    assert reborn.ipam.allocate("a/b", "d0/eth0").ipv4 == "10.9.0.5"
    assert reborn.rows["10.9.0.2"].released
    reborn.now += 61
    reborn.ipam.allocate("a/b", "d1/eth0")
    assert "10.9.0.2" not in reborn.rows


@pytest.mark.parametrize("jump", [-900.0, 1_795_000_000.0])
def test_addresses_rest_whatever_clock_they_were_released_by(life: Life, jump: float) -> None:
    """By a clock that has since gone back, as at a restart of the machine, or by the wall clock of a former version."""
    for n in range(4):
        life.ipam.allocate("a/b", f"c{n}/eth0")
    if jump > 0:
        life.now += jump
    life.ipam.release("c0/eth0")
    life.now = 100.0
    reborn = life.again()
    assert reborn.rows["10.9.0.2"].released == 100.0
    assert reborn.ipam.allocate("a/b", "d0/eth0").ipv4 == "10.9.0.6", "the released address rests"
    reborn.now += 59
    assert reborn.ipam.allocate("a/b", "c1/eth0").ipv4 == "10.9.0.3", "what is in use stays in use"
    reborn.now += 2
    assert reborn.ipam.allocate("a/b", "d1/eth0").ipv4 == "10.9.0.2", "and it does not rest for ever"


def test_exhaustion_says_which_pool_how_many_and_whose(life: Life) -> None:
    for n in range(5):
        life.ipam.allocate("prod/web" if n else "dev/x", f"c{n}/eth0")
    with pytest.raises(ExhaustedError, match=r"default/y: .*pool p4 \(10.9.0.0/29\): 5 of 5 .*: prod 4, dev 1"):
        life.ipam.allocate("default/y", "y/eth0")
    assert "y/eth0" not in life.ipam.attachments()
    assert not any(row.owner == "default/y" for row in life.rows.values()), "no half of an allocation is left"
    life.ipam.release("c2/eth0")
    assert life.ipam.allocate("default/y", "y/eth0").ipv4 == "10.9.0.4"


def test_without_a_range_it_is_not_ready_and_says_why(tmp_path: Path) -> None:
    life = Life(tmp_path / "tables.sqlite")
    life.ipam.reason = "the store is down"
    with pytest.raises(NotReadyError, match=r"no IPv4 range[.] the store is down"):
        life.ipam.allocate("a/b", "c/eth0")
    life.ipam.adopt([V4])
    with pytest.raises(NotReadyError, match="no IPv6 range"):
        life.ipam.allocate("a/b", "c/eth0")
    life.tables.close()


def test_a_range_taken_back_stays_until_its_last_pod_is_gone(life: Life) -> None:
    life.ipam.allocate("a/b", "c/eth0")
    new = PodRange(cidr="10.9.8.0/24", pool="p4")
    life.ipam.adopt([new, V6])
    assert [r.cidr for r in life.ipam.ranges()] == [V4.cidr, new.cidr, V6.cidr]
    assert life.ipam.allocate("a/d", "d/eth0").ipv4 == "10.9.8.2"
    life.ipam.release("c/eth0")
    assert [r.cidr for r in life.ipam.ranges()] == [new.cidr, V6.cidr]
    assert "10.9.0.1" not in life.rows


def test_what_can_not_be_written_down_is_not_given_out(life: Life) -> None:
    before = life.ipam.allocate("a/b", "c/eth0")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        with pytest.raises(IpamError, match=r"address for a/d can't be written down: .*tables.sqlite"):
            life.ipam.allocate("a/d", "d/eth0")
        with pytest.raises(IpamError):
            life.ipam.release("c/eth0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert life.ipam.attachments() == {"c/eth0": before}
    assert life.ipam.allocate("a/d", "d/eth0") == Allocation(ipv4="10.9.0.3", ipv6="fd09::3")


def test_ten_thousand_comings_and_goings_give_no_address_twice_and_stay_fast(tmp_path: Path) -> None:
    life = Life(tmp_path / "tables.sqlite")
    life.ipam.adopt([PodRange(cidr="10.8.0.0/20", pool="p4"), PodRange(cidr="fd08::/64", pool="p6")])
    held: dict[str, Allocation] = {}
    times = []
    for n in range(10_000):
        life.now += 0.01
        began = time.perf_counter()
        given = life.ipam.allocate(f"ns{n % 7}/p", f"c{n}/eth0")
        times.append(time.perf_counter() - began)
        assert given not in held.values() if n % 500 == 0 else True
        held[f"c{n}/eth0"] = given
        if len(held) > 3000:
            gone = next(iter(held))
            life.ipam.release(gone)
            del held[gone]
    for family in ("ipv4", "ipv6"):
        addresses = [getattr(a, family) for a in held.values()]
        assert len(set(addresses)) == len(addresses)
        assert all(ipaddress.ip_address(a) for a in addresses)
    assert life.ipam.attachments() == held == life.again().ipam.attachments()
    assert len(life.rows) < 2 * 3000 + 2 * 6100, "released rows are forgotten"
    print(
        f"allocate of two families: p50 {statistics.median(times) * 1e6:.0f} us, p99 {sorted(times)[-100] * 1e6:.0f} us"
    )
    assert statistics.median(times) < 0.0005
    life.tables.close()
