"""`hubble status`, `list` and `observe` against the relay, and `ciliate hubble` beside them, line by line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.node.hubble.cluster import Cluster
from tests.node.hubble.program import Flow, Hubble, following
from tests.node.labs import until

NODES = ["node1", "node2"]


def test_status_tells_of_both_nodes(hubble: Hubble, flows: list[Flow]) -> None:
    first, *rest = hubble.run("status").stdout.splitlines()
    assert first.startswith("Healthcheck (via ") and first.endswith("): Ok")
    assert rest[0].startswith(f"Current/Max Flows: {len(flows)}/8,190 (")
    assert rest[2] == "Connected Nodes: 2/2"
    status = json.loads(hubble.run("status -o json").stdout)
    assert int(status["seen_flows"]) == len(flows)
    assert (status["num_connected_nodes"], status.get("num_unavailable_nodes", 0)) == (2, 0)
    assert status["version"].startswith("hubble-relay v")


def test_nodes_are_listed_with_their_addresses_and_that_they_are_reached_by_tls(hubble: Hubble) -> None:
    found: list[dict[str, Any]] = json.loads(hubble.run("list nodes -o json").stdout)
    assert [node["name"] for node in found] == NODES
    for number, node in enumerate(found, 1):
        assert node["state"] == "NODE_CONNECTED"
        assert node["tls"] == {"enabled": True, "server_name": f"node{number}.default.hubble-grpc.cilium.io"}
        assert node["address"].endswith(":4244")
    lines = hubble.run("list nodes -o wide").stdout.splitlines()
    assert lines[0].split() == ["NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS", "VERSION", "ADDRESS", "TLS"]
    assert [line.split()[:2] for line in lines[1:]] == [[name, "Connected"] for name in NODES]


def test_namespaces_with_flows_are_listed(hubble: Hubble, flows: list[Flow]) -> None:
    found = json.loads(hubble.run("list namespaces -o json").stdout)
    assert found == [{"cluster": "default", "namespace": name} for name in ("fun", "shop")]


def test_flows_come_in_order_of_time_from_both_nodes(flows: list[Flow]) -> None:
    times = [flow["time"] for flow in flows]
    assert times == sorted(times)
    assert {flow["node_name"] for flow in flows} == set(NODES)
    assert len({flow["uuid"] for flow in flows}) == len(flows)


def test_every_verdict_carries_the_policies_that_gave_it(flows: list[Flow]) -> None:
    denied = [
        flow for flow in flows if flow["event_type"]["type"] in (1, 5) and flow["verdict"] == "DROPPED" and "IP" in flow
    ]
    assert denied
    for flow in denied:
        (policy,) = flow["ingress_denied_by"]
        assert (policy["kind"], policy["namespace"], policy["name"]) == ("CiliumNetworkPolicy", "shop", "db")
        assert "ciliate:rule=(default deny, ingress)" in policy["labels"]
    for flow in flows:
        if flow["event_type"]["type"] == 5 and flow["verdict"] == "FORWARDED":
            assert flow.get("ingress_allowed_by") or flow.get("egress_allowed_by"), flow


def test_the_newest_and_the_oldest_are_a_number_of_each_node(hubble: Hubble, flows: list[Flow]) -> None:
    assert [f["uuid"] for f in hubble.flows("--last 3")] == [f["uuid"] for f in flows[-3:]]
    first = hubble.flows("--first 2 --pod shop/web")
    assert [f["uuid"] for f in first] == [f["uuid"] for f in flows if _about(f, "web")][:2]
    assert len(hubble.flows("")) == 20


def test_since_and_until_bound_the_time(hubble: Hubble, flows: list[Flow]) -> None:
    middle = flows[len(flows) // 2]["time"]
    after = [flow["uuid"] for flow in flows if flow["time"] >= middle]
    assert [flow["uuid"] for flow in hubble.flows(f"--since {middle}")] == after
    before = [flow["uuid"] for flow in flows if flow["time"] <= middle]
    assert [flow["uuid"] for flow in hubble.flows(f"--until {middle}")] == before
    assert len(hubble.flows("--since 1h")) == len(flows)


def test_a_field_mask_leaves_only_what_it_names(hubble: Hubble, flows: list[Flow]) -> None:
    masked = hubble.flows("--all --field-mask verdict,source.pod_name,l4.TCP.destination_port")
    assert len(masked) == len(flows)
    for flow, whole in zip(masked, flows, strict=True):
        assert set(flow) <= {"verdict", "source", "l4"}
        assert flow.get("verdict") == whole["verdict"]
        assert flow.get("source", {}).get("pod_name") == whole["source"].get("pod_name")
        assert set(flow.get("source", {})) <= {"pod_name"}


@pytest.mark.parametrize(
    "line",
    [
        "observe --all -A",
        "observe --all -A --print-node-name --print-policy-names",
        "observe --all -A --ip-translation=false --time-format RFC3339Nano",
        "observe --all -A --color always",
        "observe --all -A -o dict --print-node-name",
        "observe --all -A -o table --print-node-name --print-policy-names",
        "observe -n shop --verdict DROPPED --not --protocol icmp --numeric",
        "list nodes -o json",
        "list namespaces -o wide",
    ],
)
def test_our_commands_print_what_the_real_program_prints(
    line: str, real: Hubble, ours: Hubble, flows: list[Flow]
) -> None:
    """Flows of pods, whole: hubble has no text for our own drop reasons, and its usual mask leaves fields out."""
    whole = " -s --use-default-field-masks=false" if line.startswith("observe") else ""
    theirs, own = (each.run(line + whole).stdout.splitlines() for each in (real, ours))
    assert len(own) > 2
    if line.endswith("json"):
        assert _timeless("\n".join(own)) == _timeless("\n".join(theirs))
    else:
        assert own == theirs


def test_our_json_is_that_of_the_real_program(real: Hubble, ours: Hubble, flows: list[Flow]) -> None:
    assert ours.flows("--all") == real.flows("--all")


def test_by_default_our_commands_find_the_relay_of_the_lab(
    cluster: Cluster, flows: list[Flow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HUBBLE_SERVER", raising=False)
    status = cluster.lab.ciliate("hubble", "status").stdout
    assert status.startswith(f"Healthcheck (via unix://{cluster.lab.place.relay_socket}): Ok")
    shown = cluster.lab.ciliate("hubble", "observe", "--rule", "--verdict", "DROPPED", "--to-port", "80").stdout
    assert "Policy denied: ingress denied by CiliumNetworkPolicy shop/db (default deny, ingress)" in shown


def test_flows_are_followed_as_they_happen(cluster: Cluster, hubble: Hubble, flows: list[Flow]) -> None:
    with following(hubble, "-f -o json --to-port 5432 --tcp-flags syn --since 0s") as lines:
        until(lambda: cluster.web.reaches(cluster.db, 5432) and lines, 20, "a flow")
    flow = json.loads(lines[0])["flow"]
    assert flow["destination"]["pod_name"] == "db"
    happened = datetime.fromisoformat(flow["time"][:26] + "+00:00")
    assert datetime.now(UTC) - happened < timedelta(seconds=20)


def test_agent_events_are_a_nodes_own(cluster: Cluster, hubble: Hubble) -> None:
    refused = hubble.run("observe agent-events", check=False)
    assert refused.returncode != 0 and "nimplemented" in refused.stderr.lower()
    node = Hubble(hubble.program, "", {"HUBBLE_SERVER": f"unix://{cluster.lab.place.node(1).hubble_socket}"})
    events = [
        json.loads(line)["agent_event"] for line in node.run("observe agent-events -o json --all").stdout.splitlines()
    ]
    assert {"ENDPOINT_CREATED", "POLICY_UPDATED"} <= {event["type"] for event in events}


def test_peers_are_told_by_each_node(cluster: Cluster, ours: Hubble) -> None:
    node = Hubble(ours.program, "", {"HUBBLE_SERVER": f"unix://{cluster.lab.place.node(2).hubble_socket}"})
    watcher = node.start("watch peers")
    assert watcher.stdout is not None
    try:
        lines = sorted(watcher.stdout.readline() for _ in NODES)
    finally:
        watcher.kill()
        watcher.communicate()
    for name, line in zip(NODES, lines, strict=True):
        assert line.startswith("PEER_ADDED")
        assert f":4244 {name} (TLS.ServerName: {name}.default.hubble-grpc.cilium.io)" in line


def _about(flow: Flow, pod: str) -> bool:
    return any(flow.get(side, {}).get("pod_name", "").startswith(pod) for side in ("source", "destination"))


def _timeless(text: str) -> Any:
    """JSON without what differs between two moments."""
    found = json.loads(text)
    for each in found:
        for name in ("uptime_ns", "num_flows", "seen_flows"):
            each.pop(name, None)
    return found
