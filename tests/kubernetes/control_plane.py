"""etcd and kube-apiserver: all that a client of the API needs, in a few seconds."""

from __future__ import annotations

import shutil
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.kubernetes.certificates import Authority
from tests.kubernetes.daemons import Daemon, free_port, wait_for
from tests.kubernetes.kubectl import Kubectl
from tests.kubernetes.programs import kubernetes

SERVICE_CIDRS = "10.96.0.0/16,fd00:96::/112"
SERVICE_ADDRESS = "10.96.0.1"
"""Of the service `kubernetes`: the first of the range."""


class ControlPlane:
    """A cluster's store and API. `start` returns when the API serves and has its default service account.

    address: where it listens; enter: a command's prefix that enters the network namespace which has that address.
    etcd: the program, if not Debian's.
    """

    def __init__(
        self,
        address: str = "127.0.0.1",
        enter: Sequence[str] = (),
        flags: Sequence[str] = (),
        folder: Path | None = None,
        etcd: str = "etcd",
    ) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="ciliate-kubernetes-"))
        self._data = Path(tempfile.mkdtemp(prefix="ciliate-etcd-", dir="/dev/shm"))  # nothing of it need last
        self.enter = list(enter)
        self._address, self._etcd_program = address, etcd
        port, self.etcd_port = (6443, 2379) if self.enter else (free_port(), free_port())
        self.url = f"https://{address}:{port}"
        self.authority = Authority(self.folder / "certificates")
        self.kubeconfig = self.authority.kubeconfig(self.url, "admin", ["system:masters"])
        self.etcd = Daemon("etcd", self._etcd_command(), self.folder)
        self.api_server = Daemon("kube-apiserver", self._api_command(port, flags), self.folder)
        self.kubectl = Kubectl(self.kubeconfig, self.enter)

    def start(self) -> None:
        """Start both."""
        self.etcd.start()
        self.start_api_server()

    def start_api_server(self) -> None:
        """Start the API server, again perhaps, and wait until it serves."""
        self.api_server.start()
        self.api_server.await_ready(self.serves)
        wait_for(
            "the default service account",
            lambda: self.enter or self.kubectl.run("get", "namespace", "default").returncode == 0,
        )

    def serves(self) -> bool:
        """Whether the API server says that it is ready."""
        if self.enter:
            return self.kubectl.run("get", "--raw", "/readyz").returncode == 0
        trusting = ssl.create_default_context(cafile=str(self.authority.file))
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", context=trusting, timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def kubectl_as(self, name: str, groups: Sequence[str] = ()) -> Kubectl:
        """A kubectl of another user."""
        return Kubectl(self.authority.kubeconfig(self.url, name, groups), self.enter)

    def close(self) -> None:
        """End both, and remove what they wrote. The API server does not end by itself once etcd is gone."""
        self.api_server.stop(grace=0.5)
        self.etcd.stop()
        shutil.rmtree(self._data, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _etcd_command(self) -> list[str]:
        client = f"http://127.0.0.1:{self.etcd_port}"
        peer = f"http://127.0.0.1:{2380 if self.enter else free_port()}"
        return [
            *self.enter, self._etcd_program, "--name=tests", f"--data-dir={self._data}",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=tests={peer}",
            "--quota-backend-bytes=1073741824", "--logger=zap", "--log-level=warn",
        ]  # fmt: skip

    def _api_command(self, port: int, flags: Sequence[str]) -> list[str]:
        names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        server = self.authority.server("kube-apiserver", [*names, "127.0.0.1", self._address, SERVICE_ADDRESS])
        to_kubelets = self.authority.client("kube-apiserver-to-kubelets", ["system:masters"])
        accounts = self.authority.service_accounts
        alone = self._address.startswith("127.")  # an endpoint may not be a loopback address
        return [
            *self.enter, str(kubernetes("kube-apiserver")),
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--bind-address={self._address}", f"--secure-port={port}", f"--advertise-address={self._address}",
            *(["--endpoint-reconciler-type=none"] if alone else []),
            f"--cert-dir={self.folder / 'certificates'}", f"--client-ca-file={self.authority.file}",
            f"--tls-cert-file={server.certificate}", f"--tls-private-key-file={server.key}",
            f"--kubelet-client-certificate={to_kubelets.certificate}", f"--kubelet-client-key={to_kubelets.key}",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts.certificate}",
            f"--service-account-signing-key-file={accounts.key}",
            f"--service-cluster-ip-range={SERVICE_CIDRS}",
            "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
            "--profiling=false", "--v=1",
            *flags,
        ]  # fmt: skip
