"""Ciliate's image from what this checkout and machine have: what deploy/Dockerfile makes, without docker.

Debian's Python and the libraries that it and our packages load, the packages of .venv that our rooms depend on, our
rooms, the compiled BPF objects, the static programs, and busybox for a shell.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from ciliate_kubernetes.install.rendering import IMAGE

from tests.kubernetes.images import Layer, add_busybox, write_archive

NAME = f"docker.io/library/{IMAGE}"
ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("cni", "hubble", "ipam", "kubernetes", "node", "objects", "policy")
_LOADER = next(Path("/lib64").glob("ld-linux-*.so.*"))
_HOME = "opt/ciliate"
_SITE = f"{_HOME}/lib/python3.11/site-packages"
_APPLETS = ("sh", "sleep", "ip", "grep", "mount", "umount", "cat", "ls", "test", "touch", "env", "kill", "ps", "ping")
_STDLIB_WITHOUT = ("test", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "pydoc_data", "config-3.11")
_UNUSED = re.compile(r"/tests?/|kubernetes/(aio/)?client/(models|api)/(__pycache__/)?(?!__)|\.(pyi|pxd|h|hpp|a|proto)$")
"""Of packages: their own tests, what compilers need, and the classes of all of Kubernetes' kinds, loaded when named."""


def write_ciliate(folder: Path) -> Path:
    """The archive of NAME. The rooms must have been built: `make bpf shim`."""
    layer = Layer(folder / "ciliate.layer")
    for name in ("proc", "sys", "dev", "tmp", "var", "run", "etc", "root", "sys/fs/bpf"):
        layer.folder(name)
    layer.link("var/run", "/run")
    layer.link("lib64", "usr/lib64")
    layer.link("lib", "usr/lib")
    layer.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    add_busybox(layer, "bin", _APPLETS)
    libraries: set[Path] = set()
    _add_python(layer, libraries)
    for path, name in _site_packages():
        layer.file(name, path)
        if ".so" in path.suffixes:
            libraries |= _needed(path)
    for path in sorted({*libraries, *_needed(Path("/usr/bin/python3.11")), *_needed(_libbpf()), _libbpf()}):
        layer.file(_library_name(path), path)
    settings = {
        "Env": [f"PATH=/{_HOME}/bin:/bin:/usr/bin", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"],
        "Entrypoint": [],
        "Cmd": ["ciliate", "--help"],
        "WorkingDir": "/",
    }
    return write_archive(folder / "ciliate.tar", NAME, layer.done(), settings)


def _add_python(layer: Layer, libraries: set[Path]) -> None:
    layer.file("usr/bin/python3.11", Path("/usr/bin/python3.11"))
    layer.file(f"{_HOME}/pyvenv.cfg", b"home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11\n")
    for name in ("python", "python3"):
        layer.link(f"{_HOME}/bin/{name}", "/usr/bin/python3.11")
    for program, module in (("ciliate", "main"), ("ciliate-dbg", "dbg")):
        text = f"#!/{_HOME}/bin/python\nfrom ciliate.cli.{module} import main\n\nmain()\n"
        layer.file(f"{_HOME}/bin/{program}", text.encode(), 0o755)
    stdlib = Path("/usr/lib/python3.11")
    for path in sorted(stdlib.rglob("*")):
        inside = path.relative_to(stdlib)
        if path.is_file() and not inside.parts[0].startswith(_STDLIB_WITHOUT):
            layer.file(f"usr/lib/python3.11/{inside}", path)
            if path.suffix == ".so":
                libraries |= _needed(path)


def _site_packages() -> Iterator[tuple[Path, str]]:
    """Files of our distributions and of all that they require: (where it is, its name in the image)."""
    seen: dict[str, Distribution] = {}
    for room in ("ciliate", *(f"ciliate-{room}" for room in ROOMS)):
        _require(room, seen)
    for name, found in sorted(seen.items()):
        for file in found.files or ():
            path, inside = Path(str(found.locate_file(file))), str(file)
            if inside.startswith("..") or inside.endswith(".pth") or _UNUSED.search(f"/{inside}") or not path.is_file():
                continue
            yield path, f"{_SITE}/{inside}"
        if name == "ciliate" or name.startswith("ciliate-"):
            yield from _room(name)


def _require(name: str, seen: dict[str, Distribution]) -> None:
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in seen:
        return
    try:
        seen[key] = distribution(name)
    except PackageNotFoundError:  # wanted on other systems only
        return
    for requirement in seen[key].requires or ():
        if "extra ==" not in requirement:
            _require(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0], seen)


def _room(name: str) -> Iterator[tuple[Path, str]]:
    """A room's package, from its folder: it is installed editable."""
    package = name.replace("-", "_")
    folder = ROOT / "core" / "ciliate" if name == "ciliate" else ROOT / "plugins" / name[8:].replace("-", "_") / package
    for top, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(f for f in folders if f != "__pycache__")
        inside = Path(top).relative_to(folder)
        for file in sorted(files):
            path = Path(top, file)
            yield path, f"{_SITE}/{package}/{inside / file}"
            cached = path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc"
            if path.suffix == ".py" and cached.exists():
                yield cached, f"{_SITE}/{package}/{inside / '__pycache__' / cached.name}"


def _needed(path: Path) -> set[Path]:
    """Shared libraries that the loader finds for a file."""
    listed = subprocess.run([str(_LOADER), "--list", str(path)], capture_output=True, text=True, check=False).stdout
    found = {Path(word) for line in listed.splitlines() for word in line.split() if word.startswith("/")}
    return {file for file in found if ROOT not in file.parents}


def _library_name(path: Path) -> str:
    """A library's name in the image, where its loader looks for it: /lib is /usr/lib there."""
    name = str(path).lstrip("/")
    return name if name.startswith("usr/") else f"usr/{name}"


def _libbpf() -> Path:
    cache = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    return Path(next(line.split()[-1] for line in cache.splitlines() if "libbpf.so.1" in line))
