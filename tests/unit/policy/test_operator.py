"""The operator's half: the status of policies, from nodes' reports; identities that nobody uses."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from ciliate.host import Host
from ciliate.model.kinds import CILIUM_IDENTITY, CILIUM_NETWORK_POLICY
from ciliate.recorder import EVENT
from ciliate.store import Object, Store
from ciliate_policy.allocator import HEARTBEAT, Allocator, identity_object
from ciliate_policy.operator import statuses
from ciliate_policy.operator.conditions import conditions_for, with_conditions
from ciliate_store_local.driver import LocalStore

from tests.unit.policy.operators import LIMIT, Nodes, message, operator, policy, said


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """The cluster's store, as a node sees it."""
    found = LocalStore({"path": str(tmp_path / "store.db")}, ())
    yield found
    await found.close()


@pytest.fixture
def quick_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that only spare the store."""
    monkeypatch.setattr(statuses, "SETTLE", 0.05)
    monkeypatch.setattr(statuses, "BETWEEN", 0.05)


async def writes(store: Store, name: str) -> int:
    """The revision at which a policy was written last."""
    return int((await store.get(CILIUM_NETWORK_POLICY, name, "default"))["metadata"]["resourceVersion"])


@pytest.mark.usefixtures("quick_status")
async def test_the_status_says_on_how_many_nodes_a_policy_is_enforced(store: Store, tmp_path: Path) -> None:
    nodes = Nodes(store)
    await nodes.add("n1", "n2", "n3")
    async with operator(tmp_path):
        web = await store.create(policy("web"))
        found = await said(store, "web", message("generation 1 is enforced on 0 of 3 nodes; not on n1, n2, n3"))
        assert (found["Enforced"]["status"], found["Enforced"]["reason"]) == ("False", "NodesLacking")
        assert (found["Valid"]["status"], found["Valid"]["observedGeneration"]) == ("True", 1)
        await nodes.realise(web, "n1", "n2")
        await said(store, "web", message("generation 1 is enforced on 2 of 3 nodes; not on n3"))
        await nodes.realise(web, "n3")
        found = await said(store, "web", message("generation 1 is enforced on 3 of 3 nodes"))
        assert found["Enforced"]["status"] == "True"
        changed = await store.update({**web, "spec": policy("web", "81")["spec"], "metadata": {**web["metadata"]}} | {
            "metadata": {k: v for k, v in web["metadata"].items() if k != "resourceVersion"}
        })  # fmt: skip
        await said(store, "web", message("generation 2 is enforced on 0 of 3 nodes; not on n1, n2, n3"))
        await nodes.realise(changed, "n1", "n2", "n3")
        await said(store, "web", message("generation 2 is enforced on 3 of 3 nodes"))


async def test_one_report_says_it_of_all_policies_and_each_status_is_written_once(store: Store, tmp_path: Path) -> None:
    nodes = Nodes(store)
    await nodes.add("n1", "n2")
    objects = [await store.create(policy(f"p{n}")) for n in range(50)]
    for obj in objects[:-1]:
        for name in ("n1", "n2"):
            nodes._digests[name].put(obj["metadata"]["name"], obj["metadata"]["uid"], 1)
    await nodes.realise(objects[-1], "n1", "n2")
    before = int((await store.list(CILIUM_NETWORK_POLICY)).revision)
    async with operator(tmp_path):
        for number in range(50):
            await said(store, f"p{number}", message("generation 1 is enforced on 2 of 2 nodes"))
        after = [await writes(store, f"p{number}") for number in range(50)]
    assert max(after) - before <= 50 + 20  # the Leases of operator and nodes count too


@pytest.mark.usefixtures("quick_status")
async def test_a_new_operator_goes_on_from_what_the_status_says(store: Store, tmp_path: Path) -> None:
    """n2's agent is down since before the operator was started: what it had, it has."""
    nodes = Nodes(store)
    await nodes.add("n1", "n2")
    web = await store.create(policy("web"))
    async with operator(tmp_path):
        await nodes.realise(web, "n1", "n2")
        await said(store, "web", message("generation 1 is enforced on 2 of 2 nodes"))
    await store.create(policy("gone"))
    await store.delete(CILIUM_NETWORK_POLICY, "gone", "default")
    later = await store.create(policy("later"))
    await nodes.say("n2", {"CiliumNetworkPolicy": "0123456789abcdef"})  # a state that nobody has seen
    before = await writes(store, "web")
    async with operator(tmp_path):
        await nodes.realise(later, "n1")
        await said(store, "later", message("generation 1 is enforced on 1 of 2 nodes; not on n2"))
        assert await writes(store, "web") == before


@pytest.mark.usefixtures("quick_status")
async def test_a_node_that_joins_or_leaves_is_counted(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statuses, "LEISURE", 0.1)
    nodes = Nodes(store)
    await nodes.add("n1")
    web = await store.create(policy("web"))
    async with operator(tmp_path):
        await nodes.realise(web, "n1")
        await said(store, "web", message("generation 1 is enforced on 1 of 1 nodes"))
        await nodes.add("n2")
        api = await store.create(policy("api"))
        await said(store, "api", message("generation 1 is enforced on 0 of 2 nodes; not on n1, n2"))
        found = await said(store, "web", lambda _: True)
        assert found["Enforced"]["message"] == "generation 1 is enforced on 1 of 1 nodes"  # not worse for a newcomer
        await nodes.realise(web, "n2")
        await said(store, "web", message("generation 1 is enforced on 2 of 2 nodes"))
        await nodes.realise(api, "n2")
        await nodes.remove("n1")
        await said(store, "api", message("generation 1 is enforced on 1 of 1 nodes"))


@pytest.mark.usefixtures("quick_status")
async def test_what_is_invalid_or_not_enforced_is_said_with_its_path(store: Store, tmp_path: Path) -> None:
    nodes = Nodes(store)
    await nodes.add("n1")
    async with operator(tmp_path):
        await store.create(policy("bad", port="70000"))
        found = await said(store, "bad", lambda found: "Enforced" in found)
        assert found["Valid"]["status"] == "False"
        wrong = "spec.ingress[0].toPorts[0].ports[0].port: 70000 is over 65535"
        assert wrong in found["Valid"]["message"] and wrong in found["Enforced"]["message"]
        assert found["Enforced"]["reason"] == "Invalid"
        await store.create(policy("names", egress=[{"toFQDNs": [{"matchName": "a.b"}]}]))
        found = await said(store, "names", lambda found: "Unsupported" in found)
        assert found["Unsupported"]["message"].startswith("spec.egress[0].toFQDNs: ")
        await store.update(
            {**(await store.get(CILIUM_NETWORK_POLICY, "names", "default")), "spec": policy("n")["spec"]}
        )
        await said(store, "names", lambda found: "Unsupported" not in found)
        events: dict[str, Object] = {}
        async with asyncio.timeout(LIMIT):
            while len(events) < 2:
                events = {one["involvedObject"]["name"]: one for one in (await store.list(EVENT)).items}
                await asyncio.sleep(0.01)
        assert (events["bad"]["type"], events["bad"]["reason"]) == ("Warning", "PolicyInvalid")
        assert wrong in events["bad"]["message"]
        assert events["names"]["reason"] == "PolicyNotEnforcedWhole"


@pytest.mark.usefixtures("quick_status")
@pytest.mark.parametrize("nonsense", [{"conditions": "x"}, {"conditions": [1, {"status": "True"}]}, {"nodes": 1}])
async def test_a_status_edited_into_nonsense_is_mended(store: Store, tmp_path: Path, nonsense: Any) -> None:
    nodes = Nodes(store)
    await nodes.add("n1")
    web = await store.create(policy("web"))
    await store.update_status({**web, "status": nonsense})
    await nodes.say("n1", {"CiliumNetworkPolicy": "nonsense"})
    async with operator(tmp_path):
        await said(store, "web", message("generation 1 is enforced on 0 of 1 nodes; not on n1"))
        await nodes.realise(web, "n1")
        await said(store, "web", message("generation 1 is enforced on 1 of 1 nodes"))


def test_conditions_of_others_stay_and_times_change_only_with_the_status() -> None:
    wanted = conditions_for(1, (), 1, 2, ["n2"])
    first = with_conditions({"conditions": [{"type": "Theirs", "status": "True"}]}, wanted)
    assert first is not None
    assert [one["type"] for one in first["conditions"]] == ["Theirs", "Valid", "Enforced"]
    assert with_conditions(first, wanted) is None
    first["conditions"][2]["lastTransitionTime"] = "2020-01-01T00:00:00Z"
    again = with_conditions(first, conditions_for(1, (), 0, 2, ["n1", "n2"]))
    assert again is not None and again["conditions"][2]["lastTransitionTime"] == "2020-01-01T00:00:00Z"
    done = with_conditions(first, conditions_for(1, (), 2, 2, []))
    assert done is not None and done["conditions"][2]["lastTransitionTime"] > "2020-01-01T00:00:00Z"


# Identities


async def endpoint(store: Store, name: str, identity: Any) -> Object:
    """A CiliumEndpoint."""
    metadata = {"name": name, "namespace": "default"}
    found = {"apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint", "metadata": metadata}
    return await store.create({**found, "status": {"identity": {"id": identity}}})


async def heartbeats(store: Store) -> dict[str, str]:
    """The annotation of each identity that there is."""
    items = (await store.list(CILIUM_IDENTITY)).items
    return {one["metadata"]["name"]: (one["metadata"].get("annotations") or {}).get(HEARTBEAT, "") for one in items}


async def until_heartbeats(store: Store, wanted: Any) -> dict[str, str]:
    async with asyncio.timeout(LIMIT):
        while not wanted(found := await heartbeats(store)):
            await asyncio.sleep(0.01)
    return found


def quick(timeout: float) -> dict[str, Any]:
    return {"policy": {"identity_gc_interval": 0.05, "identity_heartbeat_timeout": timeout}}


async def test_an_unused_identity_is_deleted_after_its_time_and_a_used_one_never(store: Store, tmp_path: Path) -> None:
    for number in (300, 301, 302):
        await store.create(identity_object(number, (f"k8s:app=a{number}",)))
    await endpoint(store, "web", 300)
    async with operator(tmp_path, **quick(60.0)):
        found = await until_heartbeats(store, lambda found: found["301"] and found["302"])
        assert found["300"] == ""
        await endpoint(store, "api", 302)
        await until_heartbeats(store, lambda found: not found["302"] and found["301"])
    async with operator(tmp_path, **quick(0.2)) as host:
        await until_heartbeats(store, lambda found: set(found) == {"300", "302"})
        async with asyncio.timeout(LIMIT):
            while 'identity_gc_entries{status="alive"} 2.0' not in host.metrics.exposition():
                await asyncio.sleep(0.01)


async def test_where_nobody_writes_endpoints_no_identity_is_deleted(store: Store, tmp_path: Path) -> None:
    await store.create(identity_object(300, ("k8s:app=a",)))
    async with operator(tmp_path, **quick(0.0)) as host:
        async with asyncio.timeout(LIMIT):
            while 'identity_gc_runs_total{outcome="success"} 5.0' not in host.metrics.exposition():
                await asyncio.sleep(0.01)
        assert await heartbeats(store) == {"300": ""}


async def test_an_identity_taken_into_use_again_is_kept(store: Store, tmp_path: Path) -> None:
    """A node takes the annotation away; its endpoint's object may come much later."""
    unused = identity_object(300, ("k8s:app=a",))
    old = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)).isoformat()
    unused["metadata"]["annotations"] = {HEARTBEAT: old, "mine": "x"}
    await store.create(unused)
    allocator = Allocator(store)
    allocator.learn(300, ("k8s:app=a",), unused=True)
    allocator.use(300)
    await until_heartbeats(store, lambda found: found["300"] == "")
    assert (await store.get(CILIUM_IDENTITY, "300"))["metadata"]["annotations"] == {"mine": "x"}
    await endpoint(store, "other", 301)
    async with operator(tmp_path, **quick(60.0)):
        await until_heartbeats(store, lambda found: found["300"] > old)


async def test_nonsense_among_identities_and_endpoints_stops_nothing(store: Store, tmp_path: Path) -> None:
    for name in ("web", "007x", "70000"):
        await store.create({**identity_object(300, ("k8s:app=a",)), "metadata": {"name": name}})
    await store.create({**identity_object(301, ()), "security-labels": ["x"]})
    broken = identity_object(302, ("k8s:app=b",))
    broken["metadata"]["annotations"] = {HEARTBEAT: "yesterday"}
    await store.create(broken)
    await endpoint(store, "web", {"id": "x"})
    async with operator(tmp_path, **quick(0.2)) as host:
        await until_heartbeats(store, lambda found: "302" not in found)
        assert set(await heartbeats(store)) == {"web", "007x", "70000", "301"}
        async with asyncio.timeout(LIMIT):
            while len([e for e in (await store.list(EVENT)).items if e["reason"] == "IdentityInvalid"]) < 4:
                await asyncio.sleep(0.01)
        assert not host.ready()


async def test_many_nodes_that_allocate_at_once_agree(store: Store) -> None:
    """Twenty nodes, with labels of their own and some that all share; none sees what another does but by asking."""
    nodes = [Allocator(store) for _ in range(20)]
    sets = [(("k8s:app=shared",), ("k8s:app=both",), (f"k8s:app=n{n}",)) for n in range(20)]
    numbers = await asyncio.gather(
        *(node.allocate(labels) for node, wanted in zip(nodes, sets, strict=True) for labels in wanted)
    )
    stored = {int(one["metadata"]["name"]): one["security-labels"] for one in (await store.list(CILIUM_IDENTITY)).items}
    for (labels,), number in zip((labels for wanted in sets for labels in wanted), numbers, strict=True):
        assert stored[number] == {"k8s:app": labels.partition("=")[2]}
    for node in nodes:
        for number, labels in stored.items():
            node.learn(number, tuple(f"{key}={value}" for key, value in labels.items()))
    for shared in ("k8s:app=shared", "k8s:app=both"):
        assert len({node.known((shared,)) for node in nodes}) == 1


async def test_a_second_operator_waits_and_goes_on_where_the_first_ended(store: Store, tmp_path: Path) -> None:
    nodes = Nodes(store)
    await nodes.add("n1")
    election = {
        "operator": {
            "leader_election_lease_duration": 0.6,
            "leader_election_renew_deadline": 0.4,
            "leader_election_retry_period": 0.05,
        }
    }

    def leading(*hosts: Host) -> list[Host]:
        return [host for host in hosts if host.leadership is not None and host.leadership.leading]

    async with AsyncExitStack() as stack:
        async with operator(tmp_path, "a", **election) as first:
            web = await store.create(policy("web"))
            await nodes.realise(web, "n1")
            await said(store, "web", message("generation 1 is enforced on 1 of 1 nodes"))
            second = await stack.enter_async_context(operator(tmp_path, "b", **election))
            assert leading(first, second) == [first]
            before = await writes(store, "web")
        api = await store.create(policy("api"))
        await nodes.realise(api, "n1")
        await said(store, "api", message("generation 1 is enforced on 1 of 1 nodes"))
        assert leading(first, second) == [second]
        assert await writes(store, "web") == before
