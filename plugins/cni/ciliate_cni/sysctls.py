"""Kernel settings of this node's network namespace, through /proc/sys/net."""

from __future__ import annotations

import errno
from pathlib import Path

from ciliate.kernel.errors import KernelError

ROOT = Path("/proc/sys/net")


def write(name: str, value: str) -> None:
    """Set one, as `ipv4/ip_forward`, unless it is so already. Raises KernelError that names it."""
    path = ROOT / name
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except FileNotFoundError:
        if not name.startswith("ipv6/"):  # a kernel without IPv6 needs none of its settings
            raise
    except OSError as error:
        raise KernelError(
            error.errno or errno.EIO, f"setting {path} to {value}", "is /proc/sys mounted writable for the agent?"
        ) from error


def forward() -> None:
    """Let the host route between pods and the world; its own interfaces go on taking router advertisements."""
    write("ipv4/ip_forward", "1")
    conf = ROOT / "ipv6" / "conf"
    for path in sorted(conf.glob("*/accept_ra")):
        if path.read_text().strip() == "1":
            path.write_text("2")
    write("ipv6/conf/all/forwarding", "1")


def trust_routes(interface: str) -> None:
    """No reverse-path check on an interface: the programs have checked where its packets come from."""
    write(f"ipv4/conf/{interface}/rp_filter", "0")
    write(f"ipv4/conf/{interface}/accept_local", "1")
