"""Rights: what the roles grant is what agents and operators use, and nothing that they ask for is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from ciliate_kubernetes.crds.definition import VERSION_LABEL
from ciliate_kubernetes.install.pods import is_ready
from ciliate_kubernetes.install.rendering import Choices, rights

from tests.kubernetes.daemons import wait_for
from tests.kubernetes.installation import SYSTEM, Installation, pod
from tests.kubernetes.node import Node
from tests.kubernetes.rights import Right, granted, refused, used

_LEADERS = 6
_NO_FINALIZERS = '{"metadata":{"finalizers":null}}'


def test_every_right_is_used_and_none_is_lacking(installation: Installation) -> None:
    """A right that is used is one without which a request is refused: no rule could be left out."""
    wanted = granted(rights(Choices()))
    unused: set[Right] = set()

    def unused_rights() -> set[Right]:
        nonlocal unused
        unused = wanted - used(installation.audited(), SYSTEM)
        return unused

    since = len(list(installation.audited()))

    def is_used(account: str, verb: str, group: str, resource: str) -> bool:
        return Right(account, verb, group, resource, True) not in unused_rights()

    make_all_of_it(installation, is_used)
    try:
        wait_for("every right is used", lambda: not unused_rights(), limit=20, every=0.5)
    except AssertionError:
        raise AssertionError("granted and never used:\n" + "\n".join(map(str, sorted(unused)))) from None
    assert refused(list(installation.audited())[since:], SYSTEM) == set()


def make_all_of_it(installation: Installation, is_used: Callable[..., bool]) -> None:
    """Have agents and operator do whatever they may ever do; the installation's intervals of collection are short."""
    kubectl = installation.kubectl
    first, second = installation.cluster.nodes
    stray = strays(kubectl.json("get", "ciliumnode", first.name))
    kubectl.apply(*policies(), *stray)
    kubectl("patch", "secret", "hubble-server-certs", "-n", SYSTEM, "--type=merge", "-p", '{"data":{"tls.crt":""}}')
    kubectl("label", "crd", "ciliumnodeconfigs.cilium.io", f"{VERSION_LABEL}=1.0.0", "--overwrite")
    here = pod("here", labels={"set": "one"}, nodeName=first.name)
    with installation.pods(here, pod("there", labels={"set": "two"}, nodeName=second.name)):
        ask_for_nonsense(first, "here")
        installation.ciliate("policy", "explain", "--from", "here", "--to", "there", "--port", "80/tcp")
        hold_and_let_go(installation, first)
        count_an_event_up(installation, partial(is_used, "ciliate-operator", group="", resource="events"))
        ask_for_nonsense(first, "here")
    for verb in ("get", "patch"):
        race_for_identities(installation, partial(is_used, "ciliate", verb, "cilium.io", "ciliumidentities"))
    kubectl("patch", "ciliumnode", "gone", "--type=merge", "-p", _NO_FINALIZERS)
    kubectl.delete(*policies(), *stray)


def hold_and_let_go(installation: Installation, node: Node) -> None:
    """A pod that stays after its containers have ended: the agent, not the API server, deletes its CiliumEndpoint."""
    kubectl, held = installation.kubectl, pod("held", nodeName=node.name)
    held["metadata"]["finalizers"] = ["ciliate.test/held"]
    kubectl.apply(held)
    installation.await_ready("held")
    kubectl("delete", "pod", "held", "--wait=false")
    wait_for("its CiliumEndpoint is gone", lambda: kubectl.run("get", "cep", "held").returncode != 0)
    kubectl("patch", "pod", "held", "--type=merge", "-p", _NO_FINALIZERS)


def count_an_event_up(installation: Installation, is_used: Callable[..., bool]) -> None:
    """An Event of the operator's recurs, in one life and in the next that leads from the same node."""
    wait_for("an Event about a node", lambda: is_used(verb="create"))
    node = installation.kubectl.json("get", "ciliumnode", "greedy")
    again = json.dumps({"spec": {"ipam": {"podCIDRs": node["spec"]["ipam"]["podCIDRs"][::-1]}}})
    installation.kubectl("patch", "ciliumnode", "greedy", "--type=merge", "-p", again)
    wait_for("it is counted up", lambda: is_used(verb="update"), limit=15)
    for _ in range(_LEADERS):
        restart_all(installation)
        try:
            wait_for("it is looked up", lambda: is_used(verb="get"), limit=3)
        except AssertionError:
            continue  # another node's operator leads, and has an Event of its own
        return


def restart_all(installation: Installation) -> None:
    """Another life of every agent and operator."""
    selector = ("-n", SYSTEM, "-l", "app.kubernetes.io/part-of=cilium")
    before = {one["metadata"]["uid"] for one in installation.kubectl.items("get", "pods", *selector)}
    installation.kubectl("delete", "pods", *selector, "--grace-period=1")

    def again(found: Any) -> bool:
        fresh = [one for one in found["items"] if one["metadata"]["uid"] not in before]
        return len(fresh) == len(before) and all(map(is_ready, fresh))

    installation.kubectl.wait("all of ours run again", "pods", *selector, condition=again)


def policies() -> list[dict[str, Any]]:
    """One of each kind; the clusterwide one is enforced only in part, which an Event says."""
    spec: dict[str, Any] = {"endpointSelector": {}, "ingress": [{"fromCIDRSet": [{"cidrGroupRef": "group"}]}]}
    unsupported = {**spec, "egress": [{"toFQDNs": [{"matchName": "ciliate.test"}]}]}

    def cilium(kind: str, spec: Any, **meta: str) -> dict[str, Any]:
        return {"apiVersion": "cilium.io/v2", "kind": kind, "metadata": {"name": "rights", **meta}, "spec": spec}

    return [
        cilium("CiliumCIDRGroup", {"externalCIDRs": ["192.0.2.0/24"]}),
        cilium("CiliumNetworkPolicy", spec, namespace="default"),
        cilium("CiliumClusterwideNetworkPolicy", unsupported),
    ]


def strays(node: Any) -> list[dict[str, Any]]:
    """An endpoint without a pod, a CiliumNode without its node, and one that wants another's range."""
    cidrs = node["spec"]["ipam"]["podCIDRs"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": "gone", "uid": "00000000-0000-0000-0000-000000000000"}
    kind = {"apiVersion": "cilium.io/v2", "kind": "CiliumNode"}
    return [
        {"apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint", "metadata": {"name": "stray", "namespace": "default"}},
        {**kind, "metadata": {"name": "greedy"}, "spec": {"ipam": {"podCIDRs": cidrs}}},
        {
            **kind,
            "metadata": {"name": "gone", "finalizers": ["ciliate.test/held"], "ownerReferences": [owner]},
            "spec": {},
        },
    ]


def ask_for_nonsense(node: Node, name: str) -> None:
    """Call the CNI plugin with the host's namespace for the pod's: an Event says why it is refused."""
    conflist = json.loads(node.run("cat", "/etc/cni/net.d/05-ciliate.conflist"))
    config = {**conflist["plugins"][0], "cniVersion": conflist["cniVersion"], "name": conflist["name"]}
    command = (
        "env CNI_COMMAND=ADD CNI_CONTAINERID=nonsense CNI_NETNS=/proc/1/ns/net CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin"
    )
    arguments = f"'CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}'"
    said = node.try_run("sh", "-c", f"echo '{json.dumps(config)}' | {command} {arguments} /opt/cni/bin/ciliate-cni")
    assert "network namespace" in said.stdout, said


def race_for_identities(installation: Installation, done: Callable[[], bool]) -> None:
    """New labels on both nodes at once, until both want one number; and labels whose identity was found unused."""
    for attempt in range(8):
        if done():
            return
        names = [node.name for node in installation.cluster.nodes]
        pods = [pod(f"race-{name}", labels={"race": f"{attempt}-{name}"}, nodeName=name) for name in names]
        with installation.pods(*pods):
            pass
        wait_for("an identity is found unused", lambda: _unused_identities(installation), limit=10)
        with installation.pods(*pods):
            pass


def _unused_identities(installation: Installation) -> list[str]:
    found = installation.kubectl.items("get", "ciliumidentities")
    return [one["metadata"]["name"] for one in found if one["metadata"].get("annotations")]
