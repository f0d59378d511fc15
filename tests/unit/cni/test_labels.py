"""Endpoint labels and named ports."""

from __future__ import annotations

from typing import Any

from ciliate_cni.labels import labels_of, named_ports_of
from ciliate_cni.pods import has_uid

POD: dict[str, Any] = {
    "metadata": {"namespace": "shop", "name": "p", "labels": {"app": "web", "io.kubernetes.pod.namespace": "forged"}},
    "spec": {
        "serviceAccountName": "robot",
        "containers": [
            {"ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9}]},
            {"ports": [{"name": "http", "containerPort": 1}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
        ],
    },
}


def test_labels_have_pod_namespace_service_account_and_cluster() -> None:
    namespace = {"metadata": {"name": "shop", "labels": {"team": "a"}}}
    assert labels_of(POD, namespace, "lab") == (
        "k8s:app=web",
        "k8s:io.cilium.k8s.namespace.labels.team=a",
        "k8s:io.cilium.k8s.policy.cluster=lab",
        "k8s:io.cilium.k8s.policy.serviceaccount=robot",
        "k8s:io.kubernetes.pod.namespace=shop",
    )


def test_a_pod_without_spec_has_the_default_service_account() -> None:
    labels = labels_of({"metadata": {"namespace": "n", "name": "p"}}, None, "c")
    assert "k8s:io.cilium.k8s.policy.serviceaccount=default" in labels


def test_of_two_ports_of_one_name_the_first_containers_counts() -> None:
    ports = {(p.name, p.port, p.protocol) for p in named_ports_of(POD)}
    assert ports == {("http", 8080, "TCP"), ("dns", 53, "UDP")}


def test_a_pod_is_known_by_its_uid_and_a_static_one_by_its_manifests_hash() -> None:
    static = {"metadata": {"uid": "u", "annotations": {"kubernetes.io/config.hash": "h"}}}
    assert [has_uid(static, uid) for uid in ("", "u", "h", "x")] == [True, True, True, False]
    assert not has_uid({"metadata": {"uid": "u"}}, "h")
