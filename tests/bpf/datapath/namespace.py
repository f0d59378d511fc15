"""A network namespace for the running thread: test runs look a packet's device up in the caller's namespace."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


@contextlib.contextmanager
def entered(devices: Mapping[int, tuple[str, str]]) -> Iterator[None]:
    """A fresh namespace with veths: interface index to name and MAC."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    _checked(_libc.unshare(_CLONE_NEWNET), "unshare")
    try:
        # sysfs shows the namespace it was mounted in; ip asks netlink and needs none
        script = "".join(
            f"link add {name} index {index} address {mac} type veth peer name p{index}\n"
            for index, (name, mac) in devices.items()
        )
        subprocess.run(["ip", "-batch", "-"], input=script.encode(), check=True)
        yield
    finally:
        _checked(_libc.setns(home, _CLONE_NEWNET), "setns")
        os.close(home)


def kernel_has_test_runs() -> bool:
    """Whether this process may load programs at all."""
    return os.geteuid() == 0 and Path("/sys/fs/bpf").is_dir()
