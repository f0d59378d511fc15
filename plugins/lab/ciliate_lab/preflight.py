"""What a lab needs of its machine, checked before anything is made: each lack with what to do about it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from ciliate_lab import cgroups, namespaces, system
from ciliate_lab.place import LabError, LabPlace

PROGRAMS = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
}


def check_root() -> None:
    """Raises LabError for anybody but root."""
    if os.geteuid() != 0:
        raise LabError("a lab makes network namespaces and loads BPF programs: run as root, for example with sudo")


def check_machine() -> None:
    """Everything that does not depend on the lab. Raises LabError with all that is lacking."""
    check_root()
    lacks = [
        f"{program} is missing: `apt-get install {p}`" for program, p in PROGRAMS.items() if not shutil.which(program)
    ]
    try:
        cgroups.root()
    except cgroups.CgroupError as error:
        lacks.append(str(error))
    filesystems = Path("/proc/filesystems").read_text().split()
    if "bpf" not in filesystems:
        lacks.append("this kernel has no bpffs: it needs CONFIG_BPF_SYSCALL")
    lacks += [
        f"plugin {name} is not installed: run `make setup`"
        for name in ("cni", "ipam", "policy")
        if not _installed(name)
    ]
    if lacks:
        raise LabError("this machine lacks what a lab needs:\n" + "\n".join(f"  - {lack}" for lack in lacks))


def check_free(lab: LabPlace) -> None:
    """Raises LabError if there is a lab of this name, or what one left."""
    down = f"`ciliate lab down --name {lab.name}` removes it"
    if lab.folder.exists():
        raise LabError(f"there is a lab {lab.name!r} already ({lab.folder}); {down}, or choose another with --name")
    left = [*namespaces.named(lab.prefix), *([str(lab.cgroup)] if lab.cgroup.exists() else [])]
    if left:
        raise LabError(f"a lab {lab.name!r} was not taken down whole (left: {', '.join(left)}); {down}")


def mounted_below(folder: Path) -> list[Path]:
    """Mount points in a folder, innermost first."""
    return [point for point, _ in reversed(system.mounts()) if point.is_relative_to(folder)]


def _installed(plugin: str) -> bool:
    return importlib.util.find_spec(f"ciliate_{plugin}") is not None
