"""Kubernetes' programs, built once into the cache of tests/go, and what else must be installed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.go.build import built, program, reason_not_to_build

VERSION = "v1.36.0"
_MODULE = "kubernetes"
_STAMPS = {
    "k8s.io/component-base/version.gitVersion": VERSION,
    "k8s.io/component-base/version.gitMajor": "1",
    "k8s.io/component-base/version.gitMinor": "36",
    "k8s.io/client-go/pkg/version.gitVersion": VERSION,
}
"""Without them they say v0.0.0-master, which kubelet and clients refuse to work with."""
CONTROL_PLANE = ("kube-apiserver", "kubectl")
CLUSTER = (*CONTROL_PLANE, "kube-controller-manager", "kube-scheduler", "kubelet")
_INSTALLED_CONTROL_PLANE = {"etcd": "etcd-server"}
_INSTALLED_CLUSTER = {
    **_INSTALLED_CONTROL_PLANE,
    "containerd": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "busybox": "busybox-static",
}


def kubernetes(name: str) -> Path:
    """One of Kubernetes' programs, built if it has not been. Takes minutes the first time."""
    return program(_MODULE, f"k8s.io/kubernetes/cmd/{name}", name, _STAMPS)


def etcd() -> Path:
    """An etcd of our days: Debian's can't tell an API server when a streamed list is whole."""
    return program("etcd", "go.etcd.io/etcd/server/v3", "etcd")


def build_all(names: tuple[str, ...] = CLUSTER) -> None:
    """Build what is not there yet."""
    for name in names:
        kubernetes(name)


def reason_not_to_run(*, nodes: bool) -> str | None:
    """Why a control plane (nodes: and nodes) can't run on this machine; None: it can."""
    if os.geteuid() != 0:
        return "needs root"
    installed = _INSTALLED_CLUSTER if nodes else _INSTALLED_CONTROL_PLANE
    if missing := sorted(package for name, package in installed.items() if shutil.which(name) is None):
        return f"needs Debian's {', '.join(missing)}"
    wanted = CLUSTER if nodes else CONTROL_PLANE
    if all(built(_MODULE, name, _STAMPS) for name in wanted):
        return None
    if reason := reason_not_to_build(_MODULE):
        return f"Kubernetes' programs are not built, and can't be: {reason}"
    return None


if __name__ == "__main__":
    build_all(tuple(sys.argv[1:]) or CLUSTER)
