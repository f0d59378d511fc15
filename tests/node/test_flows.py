"""Flows of a real node: of packets that pods sent, with the policies that let them pass or dropped them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ciliate.model.l7 import HttpRecord, L7Record, L7Type, L7Verdict
from ciliate_hubble.api import flow_pb2 as pb
from ciliate_hubble.api import observer_pb2 as api

from tests.node.labs import Lab, echo, until
from tests.node.observers import observer, one

FAMILIES = ("ipv4", "ipv6")


VERDICTS = pb.EventTypeFilter(type=5)


def policy(namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "server", "namespace": namespace}
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec}


def wanted(namespace: str, source: str, destination: str, **fields: Any) -> pb.FlowFilter:
    return pb.FlowFilter(source_pod=[f"{namespace}/{source}"], destination_pod=[f"{namespace}/{destination}"], **fields)


def names(policies: Any) -> list[tuple[str, str, str]]:
    return [(policy.kind, policy.namespace, policy.name) for policy in policies]


@pytest.mark.parametrize("family", FAMILIES)
def test_allowed_and_denied_packets_are_flows_with_their_policies(lab: Lab, namespace: str, family: str) -> None:
    ns = namespace
    server = lab.run("server", *echo("8080/tcp", "9000/udp"), namespace=ns, labels=["app=server"], ports=["8080/tcp"])
    friend = lab.run("friend", "sleep", "inf", namespace=ns, labels=["app=friend"])
    stranger = lab.run("stranger", "sleep", "inf", namespace=ns, labels=["app=stranger"])
    address = getattr(server, family)
    spec = {
        "endpointSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "friend"}}]}],
        "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"app": "foe"}}]}],
    }
    foe = lab.run("foe", "sleep", "inf", namespace=ns, labels=["app=foe"])
    own = ("CiliumNetworkPolicy", ns, "server")
    with lab.applied(policy(ns, spec)), observer(lab) as flows:
        assert friend.connects(address, 8080)
        assert not stranger.connects(address, 8080)
        assert not foe.connects(address, 8080)
        assert friend.connects(address, 9000, "udp")
        assert not stranger.pings(address)

        judged = wanted(ns, "friend", "server", event_type=[VERDICTS], traffic_direction=[pb.INGRESS], protocol=["udp"])
        verdict = one(flows, "the friend's verdict", judged)
        assert (verdict.verdict, verdict.policy_match_type, verdict.l4.UDP.destination_port) == (pb.FORWARDED, 1, 9000)
        assert (names(verdict.ingress_allowed_by), verdict.IP.destination) == ([own], address)
        assert "k8s:app=friend" in verdict.source.labels
        assert (verdict.source.workloads[0].kind, verdict.destination.cluster_name) == ("Pod", "default")
        answer = one(flows, "its answer", wanted(ns, "server", "friend", reply=[True], protocol=["tcp"]))
        assert (answer.traffic_direction, answer.trace_reason) == (pb.EGRESS, pb.REPLY)

        dropped = wanted(ns, "stranger", "server", event_type=[pb.EventTypeFilter(type=1)], protocol=["tcp"])
        denied = one(flows, "a drop by default", dropped)
        assert (denied.verdict, denied.drop_reason_desc) == (pb.DROPPED, pb.POLICY_DENIED)
        assert denied.traffic_direction == pb.INGRESS
        assert names(denied.ingress_denied_by) == [own], "what switched default deny on"
        assert denied.egress_allowed_by[0].name == "allow-all"
        assert (denied.file.name, denied.Summary) == ("judge.h", "TCP Flags: SYN")
        verdicts = flows.flows(wanted(ns, "stranger", "server", event_type=[VERDICTS]))
        assert {flow.verdict for flow in verdicts} == {pb.DROPPED}

        explicit = one(flows, "a drop by rule", wanted(ns, "foe", "server", verdict=[pb.DROPPED]))
        assert explicit.drop_reason_desc == pb.POLICY_DENY
        assert "ciliate:rule=spec.ingressDeny[0]" in explicit.ingress_denied_by[0].labels

        ping = one(flows, "a ping", wanted(ns, "stranger", "server", protocol=["icmp"]))
        assert ping.Summary == ("ICMPv4 EchoRequest" if family == "ipv4" else "ICMPv6 EchoRequest")
        assert ping.IP.ipVersion == (pb.IPv4 if family == "ipv4" else pb.IPv6)


def test_a_flow_to_the_world_has_the_worlds_identity(lab: Lab, namespace: str) -> None:
    pod = lab.run("pod", "sleep", "inf", namespace=namespace)
    with observer(lab) as flows:
        pod.connects("198.51.100.7", 80)
        flow = one(flows, "a flow", pb.FlowFilter(source_pod=[f"{namespace}/"], destination_ip=["198.51.100.0/24"]))
        assert flow.destination.labels == ["reserved:world-ipv4"]
        assert (flow.verdict, flow.traffic_direction, flow.destination.pod_name) == (pb.FORWARDED, pb.EGRESS, "")
        assert flow.interface.name.startswith("lxc")
        known = flows.stub.GetNamespaces(api.GetNamespacesRequest(), timeout=5).namespaces
        assert ("default", namespace) in [(n.cluster, n.namespace) for n in known]


def test_flows_of_a_pod_keep_its_name_when_it_is_gone(lab: Lab, namespace: str) -> None:
    server = lab.run("server", *echo("8080/tcp"), namespace=namespace, ports=["8080/tcp"])
    client = lab.run("short-lived", "sleep", "inf", namespace=namespace, labels=["life=short"])
    assert client.connects(server.ipv4, 8080)
    lab.remove("short-lived", namespace=namespace)
    with observer(lab) as flows:
        flow = one(flows, "a flow", pb.FlowFilter(source_pod=[f"{namespace}/short-lived"], source_label=["life=short"]))
        assert flow.source.pod_name == "short-lived"


def test_a_reader_follows_over_a_restart_of_the_agent(lab: Lab, namespace: str) -> None:
    server = lab.run("server", *echo("9000/udp"), namespace=namespace)
    client = lab.run("client", "sleep", "inf", namespace=namespace)
    with observer(lab) as flows, flows.following(pb.FlowFilter(source_pod=[f"{namespace}/client"])) as found:

        def told(kind: pb.AgentEventType) -> int:
            return sum(event.type == kind for event in flows.agent_events())

        before = told(pb.AGENT_STARTED)
        for life in range(2):
            many = len(found)
            assert client.connects(server.ipv6, 9000, "udp")
            until(lambda many=many: len(found) > many, 10, "a flow")  # type: ignore[misc]
            if not life:
                pid = lab.signal("agent", signal.SIGKILL)
                until(lambda: _is_another(lab, pid), 30, "another agent")  # noqa: B023 - it is called at once
        until(lambda: told(pb.AGENT_STARTED) > before, 10, "word of the agent's start")
        assert told(pb.ENDPOINT_CREATED)


def _is_another(lab: Lab, pid: int) -> bool:
    agent = lab.process("agent")
    return bool(agent["ready"] and agent["pid"] not in (0, pid))


def test_records_of_a_plugin_in_another_process_become_l7_flows(lab: Lab, namespace: str, tmp_path: Path) -> None:
    pod = lab.run("web", "sleep", "inf", namespace=namespace)
    record = L7Record(
        time=time.time_ns(), type=L7Type.RESPONSE, verdict=L7Verdict.DENIED, ingress=True, latency=7_000_000,
        source=pod.ipv6, destination="2001:db8::5", source_port=80, destination_port=40000,
        http=HttpRecord(method="GET", url="http://web/secret", protocol="HTTP/2", code=403),
    )  # fmt: skip
    records = tmp_path / "records.json"
    records.write_bytes(msgspec.json.encode([record]))
    command = [sys.executable, "-m", "tests.node.hubble.emitter", str(lab.place.node(1).config), str(records)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as emitter, observer(lab) as flows:
        try:
            web = pb.FlowFilter(source_pod=[f"{namespace}/web"], http_status_code=["4+"], http_path=["^/secret$"])
            flow = one(flows, "a flow", web)
        finally:
            emitter.terminate()
    assert (flow.Type, flow.verdict, flow.is_reply.value) == (pb.L7, pb.DROPPED, True)
    assert flow.Summary == "HTTP/2 403 7ms (GET http://web/secret)"
    assert (flow.source.pod_name, list(flow.destination.labels)) == ("web", ["reserved:world-ipv6"])
