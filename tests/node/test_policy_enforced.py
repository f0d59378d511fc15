"""Policies of every kind between pods, a node and the world outside: what is allowed answers, the rest does not."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.node.labs import Lab, Place, Pod, echo, until

Spec = dict[str, Any]
SERVER_PORTS = ("8080/tcp", "8081/tcp", "9000/udp")


def cnp(namespace: str, name: str, **spec: Any) -> Spec:
    """A CiliumNetworkPolicy for the pods with app=server."""
    selector = spec.pop("selector", {"app": "server"})
    meta = {"name": name, "namespace": namespace}
    spec = {"endpointSelector": {"matchLabels": selector}, **spec}
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": meta, "spec": spec}


def ports(*specs: str) -> list[Spec]:
    """toPorts of 80/TCP, or 80-90/TCP."""
    found = []
    for spec in specs:
        numbers, _, protocol = spec.partition("/")
        first, _, last = numbers.partition("-")
        found.append({"port": first, "protocol": protocol, **({"endPort": int(last)} if last else {})})
    return [{"ports": found}]


def pods_labelled(app: str) -> list[Spec]:
    """fromEndpoints, toEndpoints."""
    return [{"matchLabels": {"app": app}}]


@dataclass(frozen=True)
class Cast:
    """The pods of a test."""

    server: Pod
    friend: Pod
    stranger: Pod


@pytest.fixture(scope="module")
def cast(lab: Lab) -> Iterator[Cast]:
    """A server and two clients, the same for all tests of this module."""
    server_ports = ["http:8080/tcp", "alt:8081/tcp", "echo:9000/udp"]
    server = lab.run("server", *echo(*SERVER_PORTS), namespace="cast", labels=["app=server"], ports=server_ports)
    friend = lab.run("friend", *echo("7000/tcp"), namespace="cast", labels=["app=friend"], ports=["7000/tcp"])
    stranger = lab.run("stranger", "sleep", "inf", namespace="cast", labels=["app=stranger"])
    yield Cast(server, friend, stranger)
    lab.remove("server", "friend", "stranger", namespace="cast")


def test_without_a_policy_everybody_reaches_everybody(cast: Cast, lab: Lab) -> None:
    for place in (cast.friend, cast.stranger):
        assert place.reaches(cast.server, 8080)
        assert place.reaches(cast.server, 9000, "udp")
        assert all(place.pings(address) for address in cast.server.addresses)
    for address in cast.server.addresses:
        assert lab.host().connects(address, 8080)
        assert lab.outside.connects(address, 8080)


def test_an_ingress_rule_lets_the_named_pods_in_and_nobody_else(cast: Cast, lab: Lab) -> None:
    with lab.applied(cnp("cast", "in", ingress=[{"fromEndpoints": pods_labelled("friend")}])):
        assert cast.friend.reaches(cast.server, 8080)
        assert cast.friend.reaches(cast.server, 9000, "udp")
        assert not cast.stranger.reaches(cast.server, 8080)
        assert not cast.stranger.reaches(cast.server, 9000, "udp")
        assert not any(cast.stranger.pings(address) for address in cast.server.addresses)
        assert not any(lab.outside.connects(address, 8080) for address in cast.server.addresses)
        assert cast.server.reaches(cast.friend, 7000), "egress of the server is not restricted"
    assert cast.stranger.reaches(cast.server, 8080)


def test_an_egress_rule_lets_the_pod_out_to_what_it_names(cast: Cast, lab: Lab) -> None:
    out = [{"toEndpoints": pods_labelled("server"), "toPorts": ports("8080/TCP")}]
    with lab.applied(cnp("cast", "out", selector={"app": "friend"}, egress=out)):
        assert cast.friend.reaches(cast.server, 8080)
        assert not cast.friend.reaches(cast.server, 8081)
        assert not cast.friend.reaches(cast.server, 9000, "udp")
        assert cast.stranger.reaches(cast.server, 8081)
        assert cast.server.reaches(cast.friend, 7000), "answers belong to the connection"


@pytest.mark.parametrize(
    ("rule", "allowed", "denied"),
    [
        (ports("8080/TCP"), [(8080, "tcp")], [(8081, "tcp"), (9000, "udp")]),
        (ports("8080-8081/TCP"), [(8080, "tcp"), (8081, "tcp")], [(9000, "udp")]),
        (ports("9000/UDP"), [(9000, "udp")], [(8080, "tcp")]),
        (ports("0/TCP"), [(8080, "tcp"), (8081, "tcp")], [(9000, "udp")]),
        (ports("alt/TCP"), [(8081, "tcp")], [(8080, "tcp")]),
        (ports("8000-8080/ANY", "9000/UDP"), [(8080, "tcp"), (9000, "udp")], [(8081, "tcp")]),
    ],
    ids=["one port", "a range", "udp", "a protocol", "a named port", "any protocol"],
)
def test_ports_of_a_rule(
    cast: Cast, lab: Lab, rule: list[Spec], allowed: list[tuple[int, str]], denied: list[tuple[int, str]]
) -> None:
    with lab.applied(cnp("cast", "ports", ingress=[{"fromEndpoints": pods_labelled("friend"), "toPorts": rule}])):
        assert [p for p in allowed if not cast.friend.reaches(cast.server, *p)] == []
        assert [p for p in denied if cast.friend.reaches(cast.server, *p)] == []
        assert not cast.stranger.reaches(cast.server, *allowed[0])


def test_a_deny_rule_wins_over_an_allow_rule(cast: Cast, lab: Lab) -> None:
    allow = cnp("cast", "allow", ingress=[{"fromEntities": ["all"]}])
    deny = cnp("cast", "deny", ingressDeny=[{"fromEndpoints": pods_labelled("stranger"), "toPorts": ports("8080/TCP")}])
    with lab.applied(allow, deny):
        assert cast.friend.reaches(cast.server, 8080)
        assert not cast.stranger.reaches(cast.server, 8080)
        assert cast.stranger.reaches(cast.server, 8081)


def test_icmp_rules_allow_the_named_types(cast: Cast, lab: Lab) -> None:
    fields = [{"family": "IPv4", "type": 8}, {"family": "IPv6", "type": "EchoRequest"}]
    with lab.applied(cnp("cast", "icmp", ingress=[{"icmps": [{"fields": fields}]}])):
        assert all(cast.stranger.pings(address) for address in cast.server.addresses)
        assert not cast.stranger.reaches(cast.server, 8080)
    with lab.applied(cnp("cast", "icmp4", ingress=[{"icmps": [{"fields": fields[:1]}]}])):
        assert cast.stranger.pings(cast.server.ipv4)
        assert not cast.stranger.pings(cast.server.ipv6)


def test_an_empty_list_of_peers_selects_nobody_and_an_absent_one_everybody(cast: Cast, lab: Lab) -> None:
    with lab.applied(cnp("cast", "nobody", ingress=[{"fromEndpoints": []}])):
        assert not cast.friend.reaches(cast.server, 8080)
    with lab.applied(cnp("cast", "everybody", ingress=[{}])):
        assert cast.friend.reaches(cast.server, 8080)
        assert lab.outside.connects(cast.server.ipv4, 8080)


def test_entities_world_cluster_and_host(cast: Cast, lab: Lab) -> None:
    address = cast.server.ipv4
    with lab.applied(cnp("cast", "world", ingress=[{"fromEntities": ["world"]}])):
        assert all(lab.outside.connects(ip, 8080) for ip in cast.server.addresses)
        assert not cast.friend.reaches(cast.server, 8080)
    with lab.applied(cnp("cast", "cluster", ingress=[{"fromEntities": ["cluster"]}])):
        assert cast.friend.reaches(cast.server, 8080)
        assert not lab.outside.connects(address, 8080)
    with lab.applied(cnp("cast", "host", ingress=[{"fromEntities": ["host"]}])):
        assert all(lab.host().connects(ip, 8080) for ip in cast.server.addresses)
        assert not cast.friend.reaches(cast.server, 8080)


def test_the_node_itself_reaches_its_pods_whatever_the_policy(cast: Cast, lab: Lab) -> None:
    with lab.applied(cnp("cast", "nobody", ingress=[{"fromEndpoints": pods_labelled("friend")}])):
        assert all(lab.host().connects(address, 8080) for address in cast.server.addresses)


@pytest.fixture(scope="module")
def world(lab: Lab) -> Iterator[Place]:
    """An echo server outside on port 8080, at every address that stands for the world."""
    command = ["nsenter", f"--net=/run/netns/{lab.outside.netns}", *echo("8080/tcp")]
    server = subprocess.Popen(command)
    until(lambda: lab.outside.connects("127.0.0.1", 8080), what="the server outside")
    yield lab.outside
    server.kill()
    server.wait()


def test_egress_to_cidrs_with_exceptions(cast: Cast, lab: Lab, world: Place) -> None:
    sets = [
        {"cidr": "198.51.100.0/24", "except": ["198.51.100.2/32"]},
        {"cidr": "2001:db8:51::/64", "except": ["2001:db8:51::2/128"]},
    ]
    inside, excepted, elsewhere = (
        ("198.51.100.1", "2001:db8:51::1"),
        ("198.51.100.2", "2001:db8:51::2"),
        ("203.0.113.1", "2001:db8:113::1"),
    )
    for address in (*inside, *excepted, *elsewhere):
        assert cast.friend.connects(address, 8080, timeout=5), f"{address} without a policy"
    with lab.applied(cnp("cast", "cidr", selector={"app": "friend"}, egress=[{"toCIDRSet": sets}])):
        assert all(cast.friend.connects(address, 8080) for address in inside)
        assert not any(cast.friend.connects(address, 8080) for address in (*excepted, *elsewhere))
        assert not cast.friend.reaches(cast.server, 8080)


def test_ingress_from_a_cidr(cast: Cast, lab: Lab) -> None:
    gateways = lab.status()["outside"]["gateways"]
    with lab.applied(cnp("cast", "cidr", ingress=[{"fromCIDR": [f"{gateways[0]}/32", f"{gateways[1]}/128"]}])):
        assert all(lab.outside.connects(address, 8080) for address in cast.server.addresses)
        assert not cast.friend.reaches(cast.server, 8080)
    with lab.applied(cnp("cast", "cidr", ingress=[{"fromCIDR": ["192.0.2.0/24"]}])):
        assert not any(lab.outside.connects(address, 8080) for address in cast.server.addresses)


def test_a_kubernetes_network_policy(cast: Cast, lab: Lab) -> None:
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "knp", "namespace": "cast"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"podSelector": {"matchLabels": {"app": "friend"}}}],
                    "ports": [{"port": 8080, "protocol": "TCP"}],
                }
            ],
        },
    }
    with lab.applied(policy):
        assert cast.friend.reaches(cast.server, 8080)
        assert not cast.friend.reaches(cast.server, 8081)
        assert not cast.stranger.reaches(cast.server, 8080)


def test_a_clusterwide_policy_holds_across_namespaces(cast: Cast, lab: Lab, namespace: str) -> None:
    other = lab.run("elsewhere", "sleep", "inf", namespace=namespace, labels=["app=friend"])
    server = {"k8s:io.kubernetes.pod.namespace": "cast", "app": "server"}
    source = {"k8s:io.kubernetes.pod.namespace": namespace}
    policy = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": f"wide-{namespace}"},
        "spec": {
            "endpointSelector": {"matchLabels": server},
            "ingress": [{"fromEndpoints": [{"matchLabels": source}]}],
        },
    }
    with lab.applied(policy):
        assert other.reaches(cast.server, 8080)
        assert not cast.friend.reaches(cast.server, 8080)


def test_a_namespaced_policy_does_not_name_pods_of_other_namespaces(cast: Cast, lab: Lab, namespace: str) -> None:
    other = lab.run("elsewhere", "sleep", "inf", namespace=namespace, labels=["app=friend"])
    with lab.applied(cnp("cast", "own", ingress=[{"fromEndpoints": pods_labelled("friend")}])):
        assert cast.friend.reaches(cast.server, 8080)
        assert not other.reaches(cast.server, 8080)


def test_service_accounts_are_labels(cast: Cast, lab: Lab, namespace: str) -> None:
    trusted = lab.run("trusted", "sleep", "inf", namespace=namespace, service_account="trusted")
    plain = lab.run("plain", "sleep", "inf", namespace=namespace)
    labels = {
        "k8s:io.kubernetes.pod.namespace": namespace,
        "k8s:io.cilium.k8s.policy.serviceaccount": "trusted",
    }
    with lab.applied(cnp("cast", "account", ingress=[{"fromEndpoints": [{"matchLabels": labels}]}])):
        assert trusted.reaches(cast.server, 8080)
        assert not plain.reaches(cast.server, 8080)


def test_a_policy_holds_for_connections_that_were_open_before_it(cast: Cast, lab: Lab) -> None:
    def connect() -> socket.socket:
        opened = socket.create_connection((cast.server.ipv4, 8080), timeout=2)
        opened.sendall(b"one")
        assert opened.recv(16) == b"one"
        return opened

    opened = cast.stranger.inside(connect)
    with lab.applied(cnp("cast", "late", ingress=[{"fromEndpoints": pods_labelled("friend")}])):
        opened.settimeout(1.0)
        opened.sendall(b"two")
        with pytest.raises(TimeoutError):
            opened.recv(16)
    opened.settimeout(10.0)
    assert opened.recv(16) == b"two", "the connection goes on when the policy is gone"
    opened.close()


def test_explain_and_the_wire_agree_and_name_the_rule(cast: Cast, lab: Lab) -> None:
    with lab.applied(cnp("cast", "named", ingress=[{"fromEndpoints": pods_labelled("friend")}])):
        for pod, verdict in ((cast.friend, "allowed"), (cast.stranger, "denied")):
            words = ["--from", f"cast/{pod.name}", "--to", "cast/server", "--port", "8080/tcp", "-o", "json"]
            answer = json.loads(lab.ciliate("policy", "explain", *words).stdout)
            assert answer["verdict"] == verdict
            assert pod.reaches(cast.server, 8080) == (verdict == "allowed")
        answer = lab.ciliate("policy", "explain", "--from", "cast/friend", "--to", "cast/server", "--port", "8080/tcp")
        assert "cast/named" in answer.stdout
