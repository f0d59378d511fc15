"""The policy plugin on real maps and a real store: pods and policies in, map entries out. No packet is sent."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ciliate.kernel import syscall
from ciliate.leadership import LEASE
from ciliate.maps.map import Map
from ciliate.model.endpoint import ENDPOINT_POLICIES, ENDPOINT_POLICY_MAP, NamedPort
from ciliate.model.identity import IDENTITIES
from ciliate.model.ipcache import IPCACHE, IPCACHE_MAP
from ciliate.model.kinds import CILIUM_NETWORK_POLICY
from ciliate.model.policy import POLICY_MAP, POLICY_REVISIONS, RULE_SETS, Direction
from ciliate.model.policy_report import EMPTY, PREFIX, PolicyDigest, read_report
from ciliate.store import NotFoundError, Store

from tests.node.policy_node import LIMIT, Node, agent_of, mounted, running, until, web_policy

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes BPF maps: needs root")


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """A bpffs of the test's own."""
    with mounted(tmp_path / "bpf") as folder:
        yield folder


async def test_a_pod_without_policies_is_allowed_everything(tmp_path: Path, bpffs: Path) -> None:
    async with running(tmp_path, bpffs) as node:
        row = await node.add(1, "web")
        assert not row.ingress_enforcing
        assert node.entries(row.ingress_policy) == {(0, 0, 0, 0): (False, 1)}
        slot: Any = node.host.maps.open(ENDPOINT_POLICY_MAP).lookup(1)
        assert (int(slot["identity"]), int(slot["ingress"]), int(slot["egress"])) == (
            row.identity,
            row.ingress_policy,
            row.egress_policy,
        )
        found = {int(v["identity"]) for v in node.host.maps.open(IPCACHE_MAP).items()[1]}
        assert found == {9, 10, row.identity}


async def test_a_policy_is_enforced_and_named(tmp_path: Path, bpffs: Path) -> None:
    async with running(tmp_path, bpffs) as node:
        await node.add(1, "web")
        client = await node.add(2, "client")
        await node.apply(web_policy())
        row = await node.realised(1, lambda row: row.ingress_enforcing)
        entries = node.entries(row.ingress_policy)
        assert set(entries) == {(client.identity, 6, 80, 24), (1, 0, 0, 0)}
        rule_set = node.host.tables.reader(RULE_SETS).get(entries[client.identity, 6, 80, 24][1])
        assert rule_set is not None
        assert [(r.kind, r.name, r.direction, r.index) for r in rule_set.rules] == [
            ("CiliumNetworkPolicy", "web", "ingress", 0)
        ]


async def test_the_node_reports_what_it_has_realised(tmp_path: Path, bpffs: Path) -> None:
    """One digest a kind, of all objects as they are: what the operator and `ciliate apply --wait` go by."""

    async def reported(store: Store, digest: PolicyDigest) -> None:
        async with asyncio.timeout(LIMIT):
            while True:
                with suppress(NotFoundError):
                    report = read_report(await store.get(LEASE, f"{PREFIX}n1", "kube-system"))
                    if report.get("CiliumNetworkPolicy", EMPTY) == str(digest):
                        return
                await asyncio.sleep(0.01)

    async with running(tmp_path, bpffs) as node:
        store, digest = node.host.store, PolicyDigest()
        await reported(store, digest)
        for policy in (web_policy(), {**web_policy(), "metadata": {"name": "b", "namespace": "default"}}):
            await node.apply(policy)
            stored = await store.get(CILIUM_NETWORK_POLICY, policy["metadata"]["name"], "default")
            digest.put(stored["metadata"]["name"], stored["metadata"]["uid"], 1)
            await reported(store, digest)
        await node.replace({**stored, "spec": web_policy(port="8080")["spec"]})
        digest.put("b", stored["metadata"]["uid"], 2)
        await reported(store, digest)
        await store.delete(CILIUM_NETWORK_POLICY, "b", "default")
        digest.remove("b")
        await reported(store, digest)
        await store.delete(LEASE, f"{PREFIX}n1", "kube-system")
    async with running(tmp_path, bpffs) as node:
        await reported(node.host.store, digest)


async def test_an_invalid_policy_is_not_enforced_and_says_why(tmp_path: Path, bpffs: Path) -> None:
    async with running(tmp_path, bpffs) as node:
        await node.add(1, "web")
        await node.apply(web_policy(port="70000"))
        revision = node.host.tables.reader(POLICY_REVISIONS).get(("CiliumNetworkPolicy", "default", "web"))
        assert revision is not None and not revision.enforced
        assert "spec.ingress[0].toPorts[0].ports[0].port: 70000 is over 65535" in revision.invalid
        assert not (await node.realised(1)).ingress_enforcing


async def test_a_new_peer_is_added_without_judging_anew(tmp_path: Path, bpffs: Path) -> None:
    async with running(tmp_path, bpffs) as node:
        await node.add(1, "web")
        await node.apply(web_policy())
        before = await node.realised(1, lambda row: row.ingress_enforcing)
        stamp = node.stamp(1)
        client = await node.add(2, "client")
        assert (client.identity, 6, 80, 24) in node.entries(before.ingress_policy)
        assert node.stamp(1) == stamp


async def test_a_changed_policy_is_written_under_a_new_id_and_the_old_one_deleted(tmp_path: Path, bpffs: Path) -> None:
    async with running(tmp_path, bpffs) as node:
        await node.add(1, "web")
        await node.add(2, "client")
        await node.apply(web_policy())
        before = await node.realised(1, lambda row: row.ingress_enforcing)
        await node.replace(web_policy(port="8080"))
        after = await node.realised(1, lambda row: row.ingress_policy != before.ingress_policy)
        await until(lambda: not node.entries(before.ingress_policy))
        assert any(key[2] == 8080 for key in node.entries(after.ingress_policy))


async def test_removing_the_policy_opens_the_pod_again(tmp_path: Path, bpffs: Path) -> None:
    async with running(tmp_path, bpffs) as node:
        await node.add(1, "web")
        await node.apply(web_policy())
        await node.realised(1, lambda row: row.ingress_enforcing)
        await node.host.store.delete(CILIUM_NETWORK_POLICY, "web", "default")
        row = await node.realised(1, lambda row: not row.ingress_enforcing)
        assert node.entries(row.ingress_policy) == {(0, 0, 0, 0): (False, 1)}


async def test_cidrs_get_an_identity_a_selector_set_and_an_ipcache_entry(tmp_path: Path, bpffs: Path) -> None:
    async with running(tmp_path, bpffs) as node:
        await node.add(1, "web")
        many = [f"192.0.2.{n}/32" for n in range(50)]
        await node.apply(web_policy(ingress=[{"fromCIDR": many}], egress=[{"toCIDRSet": [{"cidr": "fd01::/16"}]}]))
        row = await node.realised(1, lambda row: row.ingress_enforcing)
        cache = node.host.tables.reader(IPCACHE).rows
        identities = {cache[prefix].identity for prefix in many}
        assert len(identities) == 1
        assert (identities.pop(), 0, 0, 0) in node.entries(row.ingress_policy)
        assert (cache["fd01::/16"].identity, 0, 0, 0) in node.entries(row.egress_policy)


async def test_an_unknown_pod_is_init_and_closed(tmp_path: Path, bpffs: Path) -> None:
    async with running(tmp_path, bpffs) as node:
        row = await node.add(1, "web", labels=())
        assert (row.identity, row.ingress_enforcing, row.egress_enforcing) == (5, True, True)
        assert node.entries(row.egress_policy) == {}


async def test_named_ports_mean_what_the_destination_says(tmp_path: Path, bpffs: Path) -> None:
    async with running(tmp_path, bpffs) as node:
        await node.add(1, "web", named_ports=(NamedPort(name="http", port=8081, protocol="TCP"),))
        await node.apply(web_policy(ingress=[{"toPorts": [{"ports": [{"port": "http"}]}]}]))
        row = await node.realised(1, lambda row: row.ingress_enforcing)
        assert (0, 6, 8081, 24) in node.entries(row.ingress_policy)


async def test_a_restart_keeps_what_is_right_and_deletes_what_is_not(tmp_path: Path, bpffs: Path) -> None:
    async with running(tmp_path, bpffs) as node:
        await node.add(1, "web")
        await node.add(2, "client")
        await node.apply(web_policy(ingress=[{"fromCIDR": ["192.0.2.0/24"]}, {"fromEndpoints": [{}]}]))
        before = await node.realised(1, lambda row: row.ingress_enforcing)
        kept = node.entries(before.ingress_policy)
        stamp = node.stamp(1)
        stray: Any = np.zeros(1, POLICY_MAP.key)
        stray["policy"], stray["prefixlen"] = 999, 72
        node.host.maps.open(POLICY_MAP, writable=True).update_batch(stray, np.zeros(1, POLICY_MAP.value))
    async with running(tmp_path, bpffs) as node:
        await until(lambda: not node.host.ready())
        after = await node.realised(1)
        assert after.ingress_policy == before.ingress_policy
        assert node.entries(before.ingress_policy) == kept
        assert node.stamp(1) == stamp
        await until(lambda: not node.entries(999))


async def test_a_rule_changed_while_the_agent_was_down_is_enforced(tmp_path: Path, bpffs: Path) -> None:
    async with running(tmp_path, bpffs) as node:
        await node.add(1, "web")
        await node.add(2, "client")
        await node.apply(web_policy())
        await node.realised(1, lambda row: row.ingress_enforcing)
        store = node.host.store
        await node.replace(web_policy(port="81"))
        before = await node.realised(1)
        await store.update(web_policy(port="82"))
    async with running(tmp_path, bpffs) as node:
        after = await node.realised(1, lambda row: any(k[2] == 82 for k in node.entries(row.ingress_policy)))
        assert after.ingress_policy != before.ingress_policy
        await until(lambda: not node.entries(before.ingress_policy))


async def test_a_pod_with_a_known_identity_is_realised_at_once(tmp_path: Path, bpffs: Path) -> None:
    async with running(tmp_path, bpffs) as node:
        await node.apply(web_policy())
        await node.add(1, "web")
        took = []
        for number in range(2, 52):
            began = time.perf_counter()
            await node.add(number, "web")
            took.append(time.perf_counter() - began)
        print(f"known pod realised in {np.median(took) * 1e6:.0f} µs (p50), {max(took) * 1e6:.0f} µs (most)")
        assert np.median(took) < 0.002


async def test_explain_names_the_rules(tmp_path: Path, bpffs: Path) -> None:
    from ciliate.api.client import Client

    async with running(tmp_path, bpffs) as node:
        await node.add(1, "web")
        await node.add(2, "client")
        await node.apply(web_policy())
        await node.realised(1, lambda row: row.ingress_enforcing)

        def ask(port: str) -> Any:
            with Client(tmp_path / "run" / "agent.sock") as client:
                return client.get("/policy/explain", {"from": "client-2", "to": "default/web-1", "port": port})

        allowed = await asyncio.to_thread(ask, "80/tcp")
        denied = await asyncio.to_thread(ask, "81/tcp")
        assert allowed["verdict"] == "allowed"
        assert [r["path"] for r in allowed["ingress"]["rules"]] == ["CiliumNetworkPolicy default/web spec.ingress[0]"]
        assert allowed["ingress"]["match"] == "L3-L4"
        assert allowed["egress"]["rules"][0]["path"] == "allow-all"
        path = "CiliumNetworkPolicy default/web (default deny, ingress)"
        assert (denied["verdict"], [r["path"] for r in denied["ingress"]["rules"]]) == ("denied", [path])
        row = node.host.tables.reader(ENDPOINT_POLICIES).get(1)
        assert row is not None and denied["ingress"]["rule_set"] == row.ingress_default
        assert denied["ingress"]["enforced_by"] == ["CiliumNetworkPolicy default/web"]


def default_names(node: Node, number: int) -> dict[str, list[str]]:
    """The paths of what denies by default, by direction, as a reader of the tables finds them."""
    row = node.host.tables.reader(ENDPOINT_POLICIES).get(number)
    assert row is not None
    sets = node.host.tables.reader(RULE_SETS)
    found = {direction.name.lower(): sets.get(row.default_rule_set(direction)) for direction in Direction}
    return {side: [rule.path for rule in rules.rules] for side, rules in found.items() if rules is not None}


async def test_what_denies_by_default_is_named_for_each_endpoint(tmp_path: Path, bpffs: Path) -> None:
    async with running(tmp_path, bpffs) as node:
        await node.add(1, "web")
        await node.add(2, "client")
        assert default_names(node, 1) == {}
        await node.apply(web_policy())
        await node.apply(web_policy("also", egress=[{"toEndpoints": [{}]}]))
        also, web = (f"CiliumNetworkPolicy default/{name} (default deny, {{}})" for name in ("also", "web"))
        wanted = {"ingress": [also.format("ingress"), web.format("ingress")], "egress": [also.format("egress")]}
        await until(lambda: default_names(node, 1) == wanted)
        assert default_names(node, 2) == {}
        before = node.host.tables.reader(ENDPOINT_POLICIES).get(1)
        await node.host.store.delete(CILIUM_NETWORK_POLICY, "also", "default")
        await until(lambda: default_names(node, 1) == {"ingress": [web.format("ingress")]})
    async with running(tmp_path, bpffs) as node:
        await node.add(1, "web")
        await until(lambda: default_names(node, 1) == {"ingress": [web.format("ingress")]})
        row = node.host.tables.reader(ENDPOINT_POLICIES).get(1)
        assert before is not None and row is not None and row.ingress_default != before.ingress_default


async def test_a_default_denial_that_no_policy_asked_for_is_named_too(tmp_path: Path, bpffs: Path) -> None:
    async with running(tmp_path, bpffs, enable_policy="always") as node:
        await node.add(1, "web")
        assert default_names(node, 1) == {"ingress": ["default-deny (ingress)"], "egress": ["default-deny (egress)"]}


async def test_audit_lets_pass_what_policy_denies(tmp_path: Path, bpffs: Path) -> None:
    async with running(tmp_path, bpffs, audit=True, enable_policy="always") as node:
        row = await node.add(1, "web")
        assert row.ingress_enforcing and row.egress_enforcing
        slot: Any = node.host.maps.open(ENDPOINT_POLICY_MAP).lookup(1)
        assert int(slot["flags"]) == 1


async def test_a_round_that_fails_is_made_up_for(tmp_path: Path, bpffs: Path) -> None:
    async with running(tmp_path, bpffs) as node:
        await node.add(1, "web")
        client = await node.add(2, "client")
        agent = agent_of(node)
        agent._policy_map.close()  # every write fails from now on
        stored = await node.host.store.create(
            web_policy(ingress=[{"fromCIDR": ["192.0.2.0/24"]}, {"fromEndpoints": [{}]}])
        )
        await until(lambda: bool(node.host.ready()))
        agent._policy_map = Map(POLICY_MAP, syscall.get_pinned(bpffs / "maps" / "policy"))
        node.host.maps._owned["policy"] = agent._policy_map
        await node.enforced(stored)
        row = await node.realised(1, lambda row: row.ingress_enforcing)
        cidr = node.host.tables.reader(IPCACHE).rows["192.0.2.0/24"].identity
        assert set(node.entries(row.ingress_policy)) >= {(client.identity, 0, 0, 0), (cidr, 0, 0, 0), (1, 0, 0, 0)}
        await until(lambda: not node.host.ready())


async def test_identities_of_cidrs_that_no_rule_names_are_forgotten_after_a_while(tmp_path: Path, bpffs: Path) -> None:
    async with running(tmp_path, bpffs) as node:
        await node.add(1, "web")
        await node.apply(web_policy(ingress=[{"fromCIDR": ["192.0.2.0/24"]}]))
        identity = node.host.tables.reader(IPCACHE).rows["192.0.2.0/24"].identity
        await node.host.store.delete(CILIUM_NETWORK_POLICY, "web", "default")
        await until(lambda: "192.0.2.0/24" not in node.host.tables.reader(IPCACHE).rows)
        assert identity in node.host.tables.reader(IDENTITIES).rows
        agent = agent_of(node)
        agent.retire(agent.retire(set()))
        assert identity not in node.host.tables.reader(IDENTITIES).rows


async def test_two_nodes_agree_on_the_number_of_a_label_set(tmp_path: Path, bpffs: Path) -> None:
    (tmp_path / "second").mkdir()
    other = bpffs / "second"
    other.mkdir()
    async with running(tmp_path, bpffs) as one, running(tmp_path / "second", other, store=tmp_path) as two:
        rows = await asyncio.gather(*(n.add(i, f"app{i % 5}") for i in range(1, 21) for n in (one, two)))
        numbers: dict[int, set[int]] = {}

        def settled() -> bool:
            numbers.clear()
            for node in (one, two):
                for row in node.host.tables.reader(ENDPOINT_POLICIES).rows.values():
                    numbers.setdefault(row.id % 5, set()).add(row.identity)
            return all(len(found) == 1 for found in numbers.values())

        assert len(rows) == 40
        await until(settled)
        assert len({number for found in numbers.values() for number in found}) == 5


async def test_ten_thousand_rules_are_enforced(tmp_path: Path, bpffs: Path) -> None:
    elements = [
        {
            "fromCIDR": [f"172.16.{n // 256}.{n % 256}/32"],
            "toPorts": [{"ports": [{"port": str(1 + n), "protocol": "TCP"}]}],
        }
        for n in range(10_000)
    ]
    async with running(tmp_path, bpffs) as node:
        await node.add(1, "web")
        stored = await node.host.store.create(web_policy(ingress=elements))
        began = time.perf_counter()
        await node.enforced(stored)
        print(f"10,000 rules enforced in {time.perf_counter() - began:.2f} s")
        row = await node.realised(1, lambda row: row.ingress_enforcing)
        assert len(node.entries(row.ingress_policy)) == 10_001
