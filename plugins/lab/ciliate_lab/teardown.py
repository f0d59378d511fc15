"""Taking a lab down: all that its name leads to, whoever made it and however far it got."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ciliate_lab import cgroups, namespaces, preflight, system
from ciliate_lab.place import CLUSTERS, LabError, LabPlace

LOCK_TIMEOUT = 15.0


@contextmanager
def locked(lab: LabPlace, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """Hold the lab's folder, if it has one, against another `up` or `down`. Raises LabError."""
    try:
        handle = os.open(lab.folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield
        return
    deadline = time.monotonic() + timeout
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise LabError(
                        f"another `ciliate lab` command has been at work on {lab.name} for over {timeout:g} s;"
                        f" `fuser {lab.folder}` names it: wait for it, or end it"
                    ) from error
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def leftovers(lab: LabPlace) -> list[str]:
    """What there is of a lab: namespaces, processes, cgroup, mounts, files."""
    found = [f"network namespace {name}" for name in namespaces.named(lab.prefix)]
    found += [f"process {pid}" for pid in cgroups.pids(lab.cgroup)]
    found += [f"cgroup {lab.cgroup}"] if lab.cgroup.exists() else []
    found += [f"mount {point}" for point in preflight.mounted_below(lab.folder)]
    found += [f"folder {lab.folder}"] if lab.folder.exists() else []
    return found


def take_down(lab: LabPlace) -> bool:
    """Remove the lab; False if there was none. May be repeated. Raises LabError, CgroupError, OSError."""
    if not leftovers(lab):
        return False
    cgroups.kill(lab.cgroup)
    for name in namespaces.named(lab.prefix):
        namespaces.delete(name)
    for point in preflight.mounted_below(lab.folder):
        with suppress(OSError):  # gone with the one around it
            system.unmount(point)
    cgroups.remove(lab.cgroup)
    if still := preflight.mounted_below(lab.folder):
        raise LabError(f"{still[0]} is still mounted; end what uses it (`fuser -vm {still[0]}` tells), and try again")
    if lab.folder.exists():
        shutil.rmtree(lab.folder)
    _remove_if_empty(CLUSTERS, CLUSTERS.parent)
    return True


def _remove_if_empty(*folders: Path) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
