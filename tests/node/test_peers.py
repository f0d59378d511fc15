"""Two nodes that know each other by the cluster's objects: whose addresses are on the other one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ciliate.model.identity import Reserved

from tests.node.labs import Lab, until

KUBERNETES = ("--nodes", "2", "--set", "plugins=[cni, ipam, policy, lab, kubernetes]")


def test_a_node_knows_the_other_nodes_pods_and_addresses(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(*KUBERNETES)
    web = lab.run("web", "sleep", "inf", labels=["app=web"], node="node2")

    def known() -> dict[str, Any]:
        """node1's ipcache as the kernel has it, what the plugin kubernetes claims of it."""
        rows = lab.dbg("bpf", "ipcache", "list", "--node", "node1")
        return {row["prefix"]: row for row in rows if row["claimant"] == "kubernetes"}

    def objects(*words: str) -> Any:
        return json.loads(lab.ciliate("get", *words, "-o", "json").stdout)

    def identity_of_web() -> int:
        return int(objects("cep", "web").get("status", {}).get("identity", {}).get("id", 0))

    identity = until(identity_of_web, what="an identity")
    wanted = {f"{web.ipv4}/32", f"{web.ipv6}/128"}
    until(lambda: wanted <= known().keys(), what="both addresses of the other node's pod")
    spec = objects("ciliumnode", "node2")["spec"]
    underlay = {entry["ip"] for entry in spec["addresses"] if entry["type"] == "InternalIP"}
    rows = known()
    assert {rows[prefix]["identity"] for prefix in wanted} == {identity}
    assert {rows[prefix]["node"] for prefix in wanted} <= underlay
    assert all(rows[cidr]["unresolved"] and rows[cidr]["node"] in underlay for cidr in spec["ipam"]["podCIDRs"])
    nodes = {prefix.partition("/")[0] for prefix, row in rows.items() if row["identity"] == Reserved.REMOTE_NODE}
    assert nodes == {entry["ip"] for entry in spec["addresses"] if entry["type"] in ("InternalIP", "CiliumInternalIP")}
    lab.remove("web")
    until(lambda: not wanted & known().keys(), what="that the pod's addresses are let go")
