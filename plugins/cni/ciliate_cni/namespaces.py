"""Network namespaces: is a descriptor one, is it ours, and going into one and back."""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ciliate.kernel.errors import KernelError

from ciliate_cni.errors import CniError, Code

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703
_libc = ctypes.CDLL(None, use_errno=True)


def check_pod_namespace(descriptor: int | None, path: str, error: int) -> int:
    """The descriptor of a pod's namespace as the shim opened it. Raises CniError: gone, no namespace, or the host's."""
    if not path:
        raise CniError(Code.ENVIRONMENT, "CNI_NETNS is empty: which network namespace is the container's?")
    if descriptor is None:
        reason = os.strerror(error) if error else "the runtime's plugin handed over no descriptor"
        raise CniError(Code.NAMESPACE, f"CNI_NETNS {path} can't be opened: {reason}", "is the container gone already?")
    try:
        kind = fcntl.ioctl(descriptor, _NS_GET_NSTYPE)
    except OSError as refused:
        raise CniError(Code.NAMESPACE, f"CNI_NETNS {path} is not a network namespace", str(refused)) from refused
    if kind != _CLONE_NEWNET:
        raise CniError(Code.NAMESPACE, f"CNI_NETNS {path} is a namespace, but not a network namespace")
    if is_own(descriptor):
        raise CniError(
            Code.NAMESPACE, f"CNI_NETNS {path} is the host's own network namespace", "host-network pods need no CNI"
        )
    return descriptor


def is_own(descriptor: int) -> bool:
    """Whether a descriptor is of the network namespace that this process is in."""
    theirs, ours = os.fstat(descriptor), Path("/proc/self/ns/net").stat()
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


@contextmanager
def inside(descriptor: int, home: int) -> Iterator[None]:
    """Put the calling thread into a network namespace, and back into `home`."""
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise KernelError(ctypes.get_errno(), "entering the container's network namespace")
    try:
        yield
    finally:
        if _libc.setns(home, _CLONE_NEWNET) != 0:
            # A thread that stays there would configure a stranger's network from now on; the agent restarts unharmed.
            print(
                f"ciliate: coming back from a container's namespace: {os.strerror(ctypes.get_errno())}", file=sys.stderr
            )
            os._exit(70)
