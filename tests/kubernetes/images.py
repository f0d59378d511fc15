"""Container images from files of this machine: OCI archives, written by tarfile."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

BUSYBOX = "docker.io/library/busybox:tests"
"""Busybox and its applets: the pause container, and pods that talk."""
_KIND = "application/vnd.oci.image"
_MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
_APPLETS = (
    "sh",
    "sleep",
    "ip",
    "ping",
    "ping6",
    "nc",
    "wget",
    "httpd",
    "cat",
    "echo",
    "hostname",
    "ls",
    "true",
    "tail",
)


class Layer:
    """An image's one layer, written to a file as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by `done`
        self._folders: set[str] = set()

    def file(self, name: str, source: Path | bytes, mode: int | None = None) -> None:
        """A file, of this machine or of these bytes; its folders are made."""
        self.folder(name.rpartition("/")[0])
        if isinstance(source, bytes):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(source), 0o644 if mode is None else mode
            self._tar.addfile(entry, io.BytesIO(source))
            return
        entry = self._tar.gettarinfo(source.resolve(), name)
        entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", source.stat().st_size  # no hard links
        entry.uid = entry.gid = 0
        entry.mtime = int(entry.mtime)  # as far as Python looks at it; a fraction takes a header of its own
        entry.uname = entry.gname = ""
        entry.mode = entry.mode if mode is None else mode
        with source.open("rb") as data:
            self._tar.addfile(entry, data)

    def link(self, name: str, target: str) -> None:
        """A symbolic link."""
        self.folder(name.rpartition("/")[0])
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(entry)

    def folder(self, name: str, mode: int = 0o755) -> None:
        """A folder, and those around it."""
        if not name or name in self._folders:
            return
        self.folder(name.rpartition("/")[0])
        self._folders.add(name)
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        self._tar.addfile(entry)

    def done(self) -> Path:
        """The whole file."""
        self._tar.close()
        return self.path


def write_archive(path: Path, name: str, layer: Path, settings: Mapping[str, Any]) -> Path:
    """An OCI archive of one layer, whose file goes; `settings` is the image's `config` (Entrypoint, Env, ...)."""
    layer_digest = _file_digest(layer)
    config = _json(
        {
            "architecture": _MACHINE,
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        }
    )
    layers = [_blob(f"{_KIND}.layer.v1.tar", layer_digest, layer.stat().st_size)]
    described = _blob(f"{_KIND}.config.v1+json", _digest(config), len(config))
    body = {"schemaVersion": 2, "mediaType": f"{_KIND}.manifest.v1+json", "config": described, "layers": layers}
    manifest = _json(body)
    named = _blob(f"{_KIND}.manifest.v1+json", _digest(manifest), len(manifest))
    index = {"schemaVersion": 2, "manifests": [{**named, "annotations": {"io.containerd.image.name": name}}]}
    archive = Layer(path)
    archive.file("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    archive.file("index.json", _json(index))
    archive.file(f"blobs/sha256/{layer_digest}", layer)
    archive.file(f"blobs/sha256/{_digest(config)}", config)
    archive.file(f"blobs/sha256/{_digest(manifest)}", manifest)
    layer.unlink()
    return archive.done()


def write_busybox(folder: Path) -> Path:
    """The archive of BUSYBOX: 2 MB."""
    layer = Layer(folder / "busybox.layer")
    for name in ("proc", "sys", "dev", "etc", "tmp", "run", "var"):
        layer.folder(name)
    add_busybox(layer, "bin", _APPLETS)
    layer.file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
    settings = {"Cmd": ["/bin/sleep", "2147483647"], "Env": ["PATH=/bin"], "WorkingDir": "/"}
    return write_archive(folder / "busybox.tar", BUSYBOX, layer.done(), settings)


def add_busybox(layer: Layer, folder: str, applets: Iterable[str]) -> None:
    """Debian's static busybox, and links of its applets' names."""
    layer.file(f"{folder}/busybox", Path("/usr/bin/busybox"), 0o755)
    for applet in applets:
        layer.link(f"{folder}/{applet}", "busybox")


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _digest(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _blob(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}
