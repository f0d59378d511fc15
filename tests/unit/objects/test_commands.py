"""`ciliate apply`, `delete` and `get` on a real store, as a user types them."""

from __future__ import annotations

import asyncio
import datetime
import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ciliate.cli.dispatch import run
from ciliate.model.kinds import CILIUM_NETWORK_POLICY, NETWORK_POLICY, POD
from ciliate.model.policy_report import PolicyDigest, report_of
from ciliate.store import Object, Store
from ciliate_objects.output import age
from ciliate_store_local.driver import LocalStore

POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress: [{fromEndpoints: [{}]}]
"""


@dataclass
class Cluster:
    """A store, and the program as a user calls it."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: str, status: int = 0) -> tuple[str, str]:
        """(standard output, standard error) of `ciliate WORDS`."""
        with pytest.raises(SystemExit) as ended:
            run("ciliate", "ciliate.commands", "", list(words))
        out, err = self.capsys.readouterr()
        assert (ended.value.code or 0) == status, out + err
        return out, err

    def file(self, text: str, name: str = "manifest.yaml") -> str:
        """A manifest in a file."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)

    def store(self, use: Callable[[Store], Any]) -> Any:
        """What an async function does with the store."""

        async def work() -> Any:
            store = LocalStore({"path": str(self.folder / "store.db")}, ())
            try:
                return await use(store)
            finally:
                await store.close()

        return asyncio.run(work())


@pytest.fixture
def ciliate(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster of which this machine is a node, with the policy plugin's reviews."""
    config = {"plugins": ["policy"], "store": {"driver": "local", "path": str(tmp_path / "store.db")}}
    (tmp_path / "ciliate.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("CILIATE_CONFIG", str(tmp_path / "ciliate.yaml"))
    monkeypatch.setenv("CILIATE_LAB", "test-of-the-cli")
    yield Cluster(tmp_path, capsys)


def test_created_unchanged_configured_deleted(ciliate: Cluster) -> None:
    file = ciliate.file(POLICY)
    assert ciliate("apply", "-f", file)[0] == "ciliumnetworkpolicy.cilium.io/web created\n"
    assert ciliate("apply", "-f", file)[0] == "ciliumnetworkpolicy.cilium.io/web unchanged\n"
    ciliate.file(POLICY.replace("app: web", "app: api"))
    assert ciliate("apply", "-f", file)[0] == "ciliumnetworkpolicy.cilium.io/web configured\n"
    assert ciliate("delete", "-f", file)[0] == 'ciliumnetworkpolicy.cilium.io "web" deleted\n'
    assert "not found" in ciliate("delete", "cnp", "web", status=1)[1]
    ciliate("delete", "cnp", "web", "--ignore-not-found")


def test_many_documents_lists_and_folders(ciliate: Cluster) -> None:
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": [yaml.safe_load(POLICY.replace("web", "b"))]})
    ciliate.file(f"# first\n---\n{POLICY}\n---\n\n---\n{POLICY.replace('web', 'a')}", "m/1.yaml")
    ciliate.file(listed, "m/2.json")
    ciliate.file("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n", "m/3.yml")
    ciliate.file("no manifest", "m/readme.txt")
    out, err = ciliate("apply", "-n", "shop", "-f", str(ciliate.folder / "m"))
    assert [line.split()[0].rpartition("/")[2] for line in out.splitlines()] == ["shop", "web", "a", "b"]
    assert not err, "the namespace was made first"
    assert ciliate("get", "cnp", "-n", "shop", "-o", "name")[0].split() == [
        f"ciliumnetworkpolicy.cilium.io/{name}" for name in ("a", "b", "web")
    ]


def test_standard_input(ciliate: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(POLICY.encode())))
    assert "web created" in ciliate("apply", "-f", "-")[0]


def test_a_bad_document_is_named_and_the_others_are_applied(ciliate: Cluster) -> None:
    bad = [
        "kind: Pod\nmetadata: {name: x}",
        "- 1",
        "apiVersion: v1\nkind: Widget\nmetadata: {name: x}",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: 'Not A Name'}",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x, labels: {a: 1}}",
        "apiVersion: v1\nkind: Pod\nkind: Node\nmetadata: {name: x}",
        "a: [",
        "a: &a [*a]",
        "apiVersion: v1\nkind: Pod",
    ]
    file = ciliate.file("\n---\n".join([*bad, POLICY]))
    out, err = ciliate("apply", "-f", file, status=1)
    assert out == "ciliumnetworkpolicy.cilium.io/web created\n"
    lines = err.splitlines()
    assert [line.startswith(f"error: {file}, document {n}") for n, line in enumerate(lines, 1)] == [True] * 9
    for line, complaint in zip(
        lines,
        (
            "apiVersion: is missing",
            "must be a map",
            "kind Widget of v1 is unknown; known are",
            "lower-case",
            "quote it",
            "line 20: key 'kind' is given twice",
            "is not YAML at line",
            "contains itself",
            "metadata: is missing",
        ),
        strict=True,
    ):
        assert complaint in line


def test_what_is_not_text_or_not_there_is_named(ciliate: Cluster) -> None:
    (ciliate.folder / "x.yaml").write_bytes(b"kind: \xff")
    assert "is not UTF-8: byte 0xff at offset 6" in ciliate("apply", "-f", str(ciliate.folder / "x.yaml"), status=1)[1]
    assert "no such file" in ciliate("apply", "-f", "/nowhere.yaml", status=1)[1]
    (ciliate.folder / "empty").mkdir()
    assert "in this folder" in ciliate("apply", "-f", str(ciliate.folder / "empty"), status=1)[1]


def test_a_small_file_that_means_a_huge_document_is_refused(ciliate: Cluster) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "more than" in ciliate("apply", "-f", ciliate.file("\n".join(lines)), status=1)[1]
    assert ciliate("apply", "-f", ciliate.file("[" * 20_000), status=1)[1].startswith("error: ")


def test_findings_warn_or_refuse(ciliate: Cluster) -> None:
    unsupported = POLICY.replace("ingress: [{fromEndpoints: [{}]}]", "egress: [{toFQDNs: [{matchName: a.example}]}]")
    out, err = ciliate("apply", "-f", ciliate.file(unsupported))
    assert "created" in out
    assert "warning: " in err and "spec.egress[0].toFQDNs" in err
    invalid = POLICY.replace("fromEndpoints: [{}]", "fromCIDR: [10.0.0.0/99]")
    out, err = ciliate("apply", "-f", ciliate.file(invalid), status=1)
    assert not out and "error: " in err and "spec.ingress[0].fromCIDR" in err


def test_namespaces(ciliate: Cluster) -> None:
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: a}\nspec: {containers: [{name: c, image: i}]}\n"
    assert "namespace a does not exist" in ciliate("apply", "-f", ciliate.file(pod))[1]
    assert "leave one of them out" in ciliate("apply", "-n", "b", "-f", ciliate.file(pod), status=1)[1]
    assert ciliate("get", "pods")[1] == "No resources found in default namespace.\n"
    out = ciliate("get", "po", "-A")[0].splitlines()
    assert out[0].split() == ["NAMESPACE", "NAME", "READY", "STATUS", "AGE", "IP", "NODE"]
    assert out[1].split()[:4] == ["a", "p", "0/1", "Pending"]
    assert ciliate("get", "pod/p", "-n", "a", "-o", "json")[0].startswith("{")
    assert "No resources" not in ciliate("get", "nodes")[0]


def test_apply_keeps_what_others_have_set_and_removes_what_is_gone_from_the_manifest(ciliate: Cluster) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"app": "web", "tier": "front"}},
        "spec": {"containers": [{"name": "c", "command": ["a"]}]},
    }
    ciliate("apply", "-f", ciliate.file(yaml.safe_dump(pod)))

    async def schedule(store: Store) -> None:
        live = await store.get(POD, "p", "default")
        live["spec"]["nodeName"] = "n1"
        live["metadata"]["labels"]["added"] = "by-hand"
        await store.update(live)

    ciliate.store(schedule)
    assert "unchanged" in ciliate("apply", "-f", ciliate.file(yaml.safe_dump(pod)))[0]
    pod["metadata"]["labels"] = {"app": "api"}  # type: ignore[index]
    assert "configured" in ciliate("apply", "-f", ciliate.file(yaml.safe_dump(pod)))[0]
    live = json.loads(ciliate("get", "pod", "p", "-o", "json")[0])
    assert live["spec"]["nodeName"] == "n1"
    assert live["metadata"]["labels"] == {"app": "api", "added": "by-hand"}


def test_yaml_that_get_prints_can_be_applied_again(ciliate: Cluster) -> None:
    ciliate("apply", "-f", ciliate.file(POLICY))
    text = ciliate("get", "cnp", "web", "-o", "yaml")[0]
    assert "unchanged" in ciliate("apply", "-f", ciliate.file(text))[0]
    listed = yaml.safe_load(ciliate("get", "cnp,pods", "-o", "yaml")[0])
    assert listed["kind"] == "List" and [o["metadata"]["name"] for o in listed["items"]] == ["web"]


def test_labels_select(ciliate: Cluster) -> None:
    pods = [
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {labels}}}"
        for name, labels in (("a", "{app: web, x: '1'}"), ("b", "{app: api}"), ("c", "{app: db, old: ''}"))
    ]
    ciliate("apply", "-f", ciliate.file("\n---\n".join(pods)))

    def selected(selector: str) -> str:
        return "".join(line[-1] for line in ciliate("get", "pods", "-l", selector, "-o", "name")[0].split())

    assert selected("app=web") == "a" and selected("app!=web") == "bc" and selected("app==api") == "b"
    assert selected("app in (web, db)") == "ac" and selected("app notin (web,db),!x") == "b" and selected("old") == "c"
    assert selected("app=web,x=1") == "a" and selected("x=2") == ""
    assert "can't be read from" in ciliate("get", "pods", "-l", "app=(", status=1)[1]
    assert "say --all" in ciliate("delete", "pods", status=1)[1]
    ciliate("delete", "pods", "-l", "app in (web,api)")
    assert selected("") == "c"
    ciliate("delete", "pods", "--all")


def test_unknown_kinds_and_clusters_are_explained(ciliate: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "known are" in ciliate("get", "widgets", status=1)[1]
    monkeypatch.setenv("CILIATE_CONFIG", "/nowhere")
    assert "ciliate lab up --name test-of-the-cli" in ciliate("get", "pods", status=1)[1]


def test_wait_ends_when_the_operator_says_that_the_generation_is_enforced(ciliate: Cluster) -> None:
    async def say(store: Store, status: str, reason: str, message: str) -> None:
        policy = await store.get(CILIUM_NETWORK_POLICY, "web", "default")
        condition = {"type": "Enforced", "status": status, "reason": reason, "message": message}
        condition["observedGeneration"] = policy["metadata"]["generation"]
        await store.update_status({**policy, "status": {"conditions": [condition]}})

    def saying(*words: str) -> None:
        ciliate.store(lambda store: say(store, *words))

    file = ciliate.file(POLICY)
    error = ciliate("apply", "-f", file, "--wait", "--timeout", "0.2", status=1)[1]
    assert "after 0.2 s nothing is said of it yet; does the operator run" in error
    saying("False", "NodesLacking", "generation 1 is enforced on 1 of 2 nodes; not on n2")
    assert "not on n2" in ciliate("apply", "-f", file, "--wait", "--timeout", "0.2", status=1)[1]
    operator = threading.Timer(0.2, saying, ("True", "EnforcedOnAllNodes", "generation 1 is enforced on 2 of 2 nodes"))
    operator.start()
    ciliate("apply", "-f", file, "--wait")
    operator.join()
    changed = ciliate.file(POLICY.replace("app: web", "app: api"))
    assert "nothing is said" in ciliate("apply", "-f", changed, "--wait", "--timeout", "0.2", status=1)[1]
    saying("False", "Invalid", "generation 2 is not enforced: spec: why")
    assert "not enforced: spec: why" in ciliate("apply", "-f", changed, "--wait", status=1)[1]


def test_wait_for_a_policy_without_a_status_ends_when_every_node_reports_it(ciliate: Cluster) -> None:
    """As NetworkPolicy, which has none in Kubernetes."""

    async def nodes(store: Store) -> None:
        for name in ("n1", "n2"):
            await store.create({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": name}})

    async def report(store: Store, *names: str) -> None:
        digest = PolicyDigest()
        for one in (await store.list(NETWORK_POLICY)).items:
            digest.put(one["metadata"]["name"], one["metadata"]["uid"], one["metadata"]["generation"])
        for name in names:
            await store.create(report_of(name, "kube-system", {"NetworkPolicy": str(digest)}))

    ciliate.store(nodes)
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "web"}}
    file = ciliate.file(json.dumps({**policy, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}))
    error = ciliate("apply", "-f", file, "--wait", "--timeout", "0.2", status=1)[1]
    assert "after 0.2 s it is not enforced on n1, n2" in error
    ciliate.store(lambda store: report(store, "n1"))
    assert "not enforced on n2;" in ciliate("apply", "-f", file, "--wait", "--timeout", "0.2", status=1)[1]
    agent = threading.Timer(0.2, ciliate.store, (lambda store: report(store, "n2"),))
    agent.start()
    ciliate("apply", "-f", file, "--wait")
    agent.join()


def test_ages_are_said_as_kubectl_says_them() -> None:
    now = datetime.datetime(2026, 1, 10, tzinfo=datetime.UTC)

    def said(**ago: int) -> str:
        born: Object = {"metadata": {"creationTimestamp": (now - datetime.timedelta(**ago)).isoformat()}}
        return age(born, now)

    assert [said(seconds=5), said(seconds=150), said(minutes=25), said(minutes=170)] == ["5s", "2m30s", "25m", "170m"]
    assert [said(hours=5, minutes=10), said(hours=30), said(days=3), said(days=400)] == ["5h10m", "30h", "3d", "400d"]
    assert age({"metadata": {}}) == "<unknown>"
    assert os.environ


def test_a_policy_of_ten_thousand_rules_is_applied_changed_and_unchanged(ciliate: Cluster) -> None:
    policy = yaml.safe_load(POLICY)
    rules = [{"toCIDR": [f"10.{n // 256}.{n % 256}.0/24"]} for n in range(10_000)]
    policy["spec"] = {"endpointSelector": {"matchLabels": {"app": "web"}}, "egress": rules, "enableDefaultDeny": {}}
    file = ciliate.file(json.dumps(policy))
    assert "created" in ciliate("apply", "-f", file)[0]
    assert "unchanged" in ciliate("apply", "-f", file)[0]
    del policy["spec"]["enableDefaultDeny"]
    assert "configured" in ciliate("apply", "-f", ciliate.file(json.dumps(policy)))[0]
    live = json.loads(ciliate("get", "cnp", "web", "-o", "json")[0])
    assert live["spec"] == policy["spec"]
