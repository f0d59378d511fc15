"""A containerd of one's own: Debian's program with root, state, socket and image of the test."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from tests.node.cni_node import LIMIT, run, wait_for

IMAGE = "docker.io/library/box:1"
_BUSYBOX = Path("/usr/bin/busybox")
_CONFIG = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{folder}/containerd.sock"
"""


class Containerd:
    """The daemon, in a network namespace; containers are made by `ctr`, whose CNI folders are replaced for it alone."""

    def __init__(self, folder: Path, netns: str, conf_dir: Path, bin_dir: Path) -> None:
        self._folder = folder
        self._conf_dir = conf_dir
        self._bin_dir = bin_dir
        self._enter = ["nsenter", f"--net=/run/netns/{netns}"]
        for name in ("root", "state"):
            (folder / name).mkdir(parents=True)
        config = folder / "containerd.toml"
        config.write_text(_CONFIG.format(folder=folder))
        self._log = (folder / "containerd.log").open("wb")
        command = [*self._enter, "containerd", "-c", str(config)]
        self._daemon = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        wait_for("containerd serves", lambda: (folder / "containerd.sock").exists() and self._answers())
        write_image(folder / "image.tar")
        self.ctr("images", "import", str(folder / "image.tar"))

    def ctr(self, *words: str) -> str:
        """A command of `ctr`."""
        return run("ctr", "-a", self._folder / "containerd.sock", *words)

    def start(self, name: str) -> None:
        """`ctr run --cni` of a container that waits; returns when it runs commands."""
        mounts = (
            "mount -t tmpfs tmpfs /mnt && mkdir /mnt/up /mnt/work"
            " && mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/up,workdir=/mnt/work /etc"
            " && mount -t tmpfs tmpfs /opt && mkdir -p /etc/cni/net.d /opt/cni/bin"
            f" && mount --bind {self._conf_dir} /etc/cni/net.d && mount --bind {self._bin_dir} /opt/cni/bin"
        )
        ctr = f"exec ctr -a {self._folder}/containerd.sock run --rm --cni {IMAGE} {name} /bin/sleep 3600"
        command = [*self._enter, "unshare", "-m", "sh", "-c", f"{mounts} && {ctr}"]
        log = (self._folder / f"{name}.log").open("wb")
        self._running[name] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        wait_for(f"container {name} runs", lambda: self._runs(name))

    def run(self, name: str, *command: str) -> str:
        """Run a command in a container."""
        return self.ctr("tasks", "exec", "--exec-id", hashlib.sha1(repr(command).encode()).hexdigest(), name, *command)

    def stop(self, name: str) -> str:
        """End a container; `ctr` then calls DEL. What `ctr` said."""
        self.ctr("tasks", "kill", "--signal", "SIGKILL", name)
        self._running.pop(name).wait(LIMIT)
        return (self._folder / f"{name}.log").read_text()

    def close(self) -> None:
        """End all containers and the daemon."""
        for name in list(self._running):
            run("ctr", "-a", self._folder / "containerd.sock", "tasks", "kill", "-s", "SIGKILL", name, check=False)
            self._running.pop(name).wait(LIMIT)
        self._daemon.terminate()
        self._daemon.wait(LIMIT)
        self._log.close()

    def _answers(self) -> bool:
        command = ["ctr", "-a", str(self._folder / "containerd.sock"), "version"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _runs(self, name: str) -> bool:
        ended = self._running[name].poll()
        said = (self._folder / f"{name}.log").read_text()
        assert ended is None, f"ctr ended with {ended}: {said}"
        lines = self.ctr("tasks", "list").splitlines()
        return any(line.split()[0] == name and "RUNNING" in line for line in lines)


def write_image(path: Path) -> None:
    """An OCI archive with nothing but busybox."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in ("bin", "proc", "sys", "dev", "etc", "tmp"):
            _add(tar, folder, kind=tarfile.DIRTYPE)
        _add(tar, "bin/busybox", _BUSYBOX.read_bytes())
        for applet in ("sh", "sleep", "ip", "ping"):
            _add(tar, f"bin/{applet}", kind=tarfile.SYMTYPE, link="busybox")
    rootfs = layer.getvalue()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[run("uname", "-m").strip()]
    config = _json(
        {
            "architecture": machine,
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(rootfs)]},
        }
    )
    kind = "application/vnd.oci.image"
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": _blob(f"{kind}.config.v1+json", config),
            "layers": [_blob(f"{kind}.layer.v1.tar", rootfs)],
        }
    )
    named = {**_blob(f"{kind}.manifest.v1+json", manifest), "annotations": {"io.containerd.image.name": IMAGE}}
    with tarfile.open(path, "w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", _json({"schemaVersion": 2, "manifests": [named]}))
        for blob in (rootfs, config, manifest):
            _add(tar, f"blobs/sha256/{_digest(blob).partition(':')[2]}", blob)


def _add(tar: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, 0o755, len(data), link
    tar.addfile(entry, io.BytesIO(data))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _blob(kind: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": _digest(blob), "size": len(blob)}
