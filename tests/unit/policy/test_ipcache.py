"""Claims come to entries piece by piece, what policies rely on first."""

from __future__ import annotations

import pytest
from ciliate.model.ipcache import IpcacheClaim
from ciliate_policy.ipcache import ENDPOINTS, POLICY, Ipcache


def claim(prefix: str, identity: int, unresolved: bool = False) -> IpcacheClaim:
    return IpcacheClaim(prefix=prefix, identity=identity, unresolved=unresolved)


def test_what_policies_rely_on_comes_first_and_the_rest_in_its_order() -> None:
    ipcache = Ipcache()
    for number in range(10):
        ipcache.put("kubernetes", claim(f"10.0.0.{number}/32", 300 + number))
    ipcache.put(ENDPOINTS, claim("10.0.1.1/32", 400))
    ipcache.put(POLICY, claim("192.0.2.0/24", 500))
    assert {entry.identity for entry in ipcache.merge(0).values() if entry} == {400, 500}
    assert ipcache.pending
    assert [entry.identity for entry in ipcache.merge(3).values() if entry] == [300, 301, 302] and ipcache.pending
    assert len(ipcache.merge()) == 7 and not ipcache.pending
    ipcache.forget()
    assert not ipcache.entries and len(ipcache.merge(0)) == 2 and len(ipcache.merge()) == 10


@pytest.mark.parametrize(("ranges", "inside"), [(["10.0.0.0/8"], True), (["10.0.0.0/25"], False), (["::/0"], False)])
def test_a_cidr_rule_makes_no_outside_of_a_pod_range(ranges: list[str], inside: bool) -> None:
    ipcache = Ipcache()
    ipcache.put(POLICY, claim("10.0.0.128/25", 500))
    ipcache.put(POLICY, claim("0.0.0.0/0", 2))
    assert len(ipcache.merge()) == 2
    for prefix in ranges:
        ipcache.put("kubernetes", claim(prefix, 0, unresolved=True))
    merged = ipcache.merge()
    assert any(entry is None for entry in merged.values()) == inside
    for prefix in ranges:
        ipcache.remove("kubernetes", prefix)
    ipcache.merge()
    assert {entry.prefix for entry in ipcache.entries.values()} == {"10.0.0.128/25", "0.0.0.0/0"}
