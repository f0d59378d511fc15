"""Operator and agent on an API server that does not know our kinds yet, or knows other versions of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from ciliate.config import Settings
from ciliate.host import Host
from ciliate_kubernetes.crds.definition import VERSION_LABEL, definition_object
from ciliate_kubernetes.crds.kinds import DEFINITIONS

from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.crds.registered import NAMES
from tests.kubernetes.kubectl import Manifest

LIMIT = 60.0
MakeControlPlane = Callable[..., ControlPlane]


@asynccontextmanager
async def process(plane: ControlPlane, folder: Path, role: str) -> AsyncIterator[Host]:
    """An agent or an operator with the plugin crds alone."""
    tree = {
        "plugins": ["crds"],
        "node": {"name": "n1", "run_dir": f"{folder}/{role}", "state_dir": f"{folder}/{role}", "bpffs": str(folder)},
        "store": {"driver": "kubernetes", "kubeconfig": str(plane.kubeconfig)},
        "events": {"drain": "none"},
    }
    settings = Settings()
    settings.set("", tree, "test")
    host = Host.load(settings, role, role)
    await host.start()
    try:
        assert not host.loaded.refused, host.loaded.refused
        yield host
    finally:
        await host.stop()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0.05)


def changed(version: str) -> Manifest:
    """The definition of CiliumCIDRGroup as somebody else has registered it: with a field of theirs, without ours."""
    ours = definition_object(next(d for d in DEFINITIONS if d.kind == "CiliumCIDRGroup"))
    body = {"type": "object", "properties": {"theirs": {"type": "string"}}}
    schema = {"type": "object", "properties": {"spec": body}}
    theirs = {"name": "v2", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    metadata = {"name": ours["metadata"]["name"], "labels": {VERSION_LABEL: version}}
    return {**ours, "metadata": metadata, "spec": {**ours["spec"], "versions": [theirs]}}


async def test_an_agent_waits_for_the_kinds_and_says_so_until_an_operator_registers_them(
    make_control_plane: MakeControlPlane, tmp_path: Path
) -> None:
    plane = await asyncio.to_thread(make_control_plane)
    async with process(plane, tmp_path, "agent") as agent:
        await until(lambda: "ciliumnetworkpolicies" in str(agent.ready()))
        assert "not known to be registered; does the operator run?" in str(agent.ready())
        async with process(plane, tmp_path, "operator") as operator:
            await until(lambda: not agent.ready())
            assert operator.leadership is not None and operator.leadership.leading
            assert not operator.ready()
    found = await asyncio.to_thread(plane.kubectl.items, "get", "crd", *NAMES)
    assert len(found) == len(NAMES)


async def test_an_older_definition_is_replaced_a_newer_one_left_alone_and_both_are_of_use(
    make_control_plane: MakeControlPlane, tmp_path: Path
) -> None:
    plane = await asyncio.to_thread(make_control_plane)
    name = "ciliumcidrgroups.cilium.io"

    def versions() -> list[str]:
        return [one["name"] for one in plane.kubectl.json("get", "crd", name)["spec"]["versions"]]

    for version, wanted in (("1.30.1", ["v2", "v2alpha1"]), ("9.0.0", ["v2"])):
        await asyncio.to_thread(plane.kubectl.apply, changed(version))
        async with process(plane, tmp_path, "operator") as operator:
            await until(lambda: operator.healths["crds"].conditions.get("definitions") == "")
            assert await asyncio.to_thread(versions) == wanted
        await asyncio.to_thread(plane.kubectl, "wait", "--for=condition=Established", f"crd/{name}")
        group = {"apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup", "metadata": {"name": "g"}}
        spec = {"externalCIDRs": ["10.0.0.0/8"]} if len(wanted) == 2 else {"theirs": "x"}

        def stored(group: Manifest = group, spec: Manifest = spec) -> object:
            done = plane.kubectl.run("create", "-f", "-", stdin=json.dumps({**group, "spec": spec}))
            found = plane.kubectl.run("get", "ccg", "g", "-o", "jsonpath={.spec}")
            plane.kubectl("delete", "ccg", "g", "--ignore-not-found")
            return done.returncode == 0 and json.loads(found.stdout) == spec

        async with asyncio.timeout(LIMIT):  # a new schema is served a moment later
            while not await asyncio.to_thread(stored):
                await asyncio.sleep(0.2)
        await asyncio.to_thread(plane.kubectl, "delete", "crd", name)


async def test_an_operator_that_may_not_register_says_which_right_it_lacks(
    make_control_plane: MakeControlPlane, tmp_path: Path
) -> None:
    plane = await asyncio.to_thread(make_control_plane)
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}
    subject = {"kind": "User", "name": "nobody", "apiGroup": "rbac.authorization.k8s.io"}
    rbac = "rbac.authorization.k8s.io/v1"
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "leases"}
    plane.kubectl.apply(
        {"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": "leases"}, "rules": [leases]},
        {
            "apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": "leases"},
            "roleRef": reference, "subjects": [subject],
        },
    )  # fmt: skip
    plane.kubeconfig = plane.authority.kubeconfig(plane.url, "nobody", [])
    async with process(plane, tmp_path, "operator") as operator:
        lack = "nobody lacks the right to get customresourcedefinitions"
        await until(lambda: lack in str(operator.ready()))
