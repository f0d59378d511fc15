"""Whoever hands out ranges is killed between any two writes: nothing half-done is left, and the next finishes it."""

from __future__ import annotations

import ipaddress
from itertools import combinations
from pathlib import Path

import msgspec
import pytest
from ciliate.model.kinds import CILIUM_NODE
from ciliate.store import Store
from ciliate_ipam.ledger import CONFIG_MAP, hand_out, pod_cidrs

from tests.unit.killing import KilledError, MortalStore

POOLS = {4: ([ipaddress.ip_network("10.77.0.0/22")], 24), 6: ([ipaddress.ip_network("fd77::/104")], 120)}
WRITES_MOST = 40


async def check(store: Store) -> dict[str, list[str]]:
    """What each node was told; no two overlap, and the ledger has it all."""
    told = {n["metadata"]["name"]: pod_cidrs(n) for n in (await store.list(CILIUM_NODE)).items}
    everything = [ipaddress.ip_network(cidr) for cidrs in told.values() for cidr in cidrs]
    for one, other in combinations(everything, 2):
        assert one.version != other.version or not one.overlaps(other)
    ledgers = (await store.list(CONFIG_MAP)).items
    ledger = msgspec.json.decode(ledgers[0]["data"]["ranges"]) if ledgers else {}
    for name, cidrs in told.items():
        assert all(ledger.get(cidr) == name for cidr in cidrs)
    return told


@pytest.mark.parametrize("heard", [True, False])
async def test_a_hand_out_that_is_killed_at_any_write_is_finished_by_the_next(tmp_path: Path, heard: bool) -> None:
    for writes in range(WRITES_MOST):
        store = MortalStore({"path": str(tmp_path / f"{heard}{writes}.db")}, [CONFIG_MAP])
        new = {"apiVersion": "cilium.io/v2", "kind": "CiliumNode"}
        for name in ("gone", "n1", "n2"):
            await store.create({**new, "metadata": {"name": name}})
        await hand_out(store, POOLS)
        before = await check(store)
        await store.delete(CILIUM_NODE, "gone")
        for name in ("n3", "n4", "n5"):  # of the four ranges two are free, one of them by the node that is gone
            await store.create({**new, "metadata": {"name": name}})
        store.doom(writes, heard)
        try:
            await hand_out(store, POOLS)
            finished = True
        except KilledError:
            finished = False
        store.doom(WRITES_MOST, True)
        await check(store)
        errors = await hand_out(store, POOLS)
        told = await check(store)
        assert [told[name] for name in ("n1", "n2")] == [before[name] for name in ("n1", "n2")]
        assert [len(told[name]) for name in ("n3", "n4", "n5")] == [2, 2, 1] and "no IPv4 range" in errors["n5"]
        await store.close()
        if finished:
            assert writes == 5  # the ledger, three nodes, an error
            return
    raise AssertionError(f"not done after {WRITES_MOST} writes")
