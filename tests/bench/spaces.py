"""Network namespaces, and the links between them that are measured.

All links look alike to a pod, so that only the way between differs: addresses are /32 and /128, the default
route goes by a link-local gateway, and the neighbour entries are permanent. No packet leaves the machine.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import build

NETNS = Path("/run/netns")
PREFIX = f"cbench{os.getpid()}-"
GATEWAYS = {4: "169.254.1.1", 6: "fe80::1"}
EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}
FORWARD_INDEXES = (101, 102)
"""FIRST and SECOND of programs/forward.bpf.c."""


class SpaceError(Exception):
    """A namespace could not be set up; the command and its words are in the message."""


def run(command: Sequence[str], given: str = "") -> str:
    """Run a short command; its output. Raises SpaceError with what it said."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise SpaceError(f"`{' '.join(command)}` failed ({done.returncode}): {done.stderr.strip()}\n{given[:2000]}")
    return done.stdout


def ip(lines: Iterable[str], netns: str | None = None) -> None:
    """Run lines of iproute2's batch language, in a namespace of that name if one is given."""
    where = ["-n", netns] if netns else []
    run(["ip", *where, "-batch", "-"], "\n".join(lines) + "\n")


def sysctl(netns: str, *settings: str) -> None:
    """Set sysctls, each as net/ipv6/x=1, in a namespace."""
    script = "\n".join(f"echo {value} > /proc/sys/{key}" for key, value in (line.split("=") for line in settings))
    run(["nsenter", f"--net={NETNS / netns}", "sh", "-e"], script)


def mac(end: int, index: int) -> str:
    """The MAC of an end (1: host's, 2: pod's) of the link with an index; forward.bpf.c builds the same."""
    return f"02:0c:00:00:{end:02x}:{index:02x}"


def pod_setup(device: str, addresses: Iterable[str], gateway_mac: str, default: bool = True) -> list[str]:
    """The lines that make a device a pod's only one: its addresses, and both default routes through a gateway."""
    lines = [f"link set {device} addrgenmode none", f"link set {device} up"]
    for address in addresses:
        lines.append(
            f"address add {address}/128 dev {device} nodad"
            if ":" in address
            else f"address add {address}/32 dev {device}"
        )
    for family, gateway in GATEWAYS.items():
        lines.append(f"neighbour replace {gateway} lladdr {gateway_mac} dev {device} nud permanent")
        if default:
            lines.append(f"route add {EVERYWHERE[family]} via {gateway} dev {device} onlink")
    return lines


@dataclass
class Link:
    """Two ends to measure between: a client's namespace, servers' namespaces, and the servers' addresses by family."""

    name: str
    client: Path
    servers: tuple[Path, ...]
    addresses: dict[int, tuple[str, ...]]
    close: Callable[[], None] = field(default=lambda: None)


class Spaces:
    """Makes namespaces under names of our own and removes them all at the end."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def add(self, *names: str) -> list[str]:
        """New namespaces with `lo` up; the full names."""
        full = [PREFIX + name for name in names]
        ip(f"netns add {name}" for name in full)
        self._names += full
        for name in full:
            ip(["link set lo up"], name)
        return full

    def remove(self, names: Iterable[str]) -> None:
        """Remove some of them, and with them their devices."""
        gone = [name for name in names if name in self._names]
        ip(f"netns delete {name}" for name in gone if (NETNS / name).exists())
        self._names = [name for name in self._names if name not in gone]

    def close(self) -> None:
        """Remove all that is left."""
        self.remove(list(self._names))


def _addresses(net: int, peers: int) -> dict[int, tuple[str, ...]]:
    numbers = [(i >> 8, i & 255) for i in range(1, peers + 1)]
    return {4: tuple(f"10.{net}.{a}.{b}" for a, b in numbers), 6: tuple(f"fd00:{net}::{a:x}:{b:x}" for a, b in numbers)}


def bare(spaces: Spaces, name: str, net: int, peers: int = 1) -> Link:
    """A namespace joined by one bare veth pair to each of `peers` others. `net`: 1 to 254, its own."""
    client, *servers = spaces.add(f"{name}-c", *(f"{name}-s{i}" for i in range(peers)))
    addresses = _addresses(net, peers)
    near, far = mac(1, 9), mac(2, 9)
    lines = []
    for i, server in enumerate(servers):
        lines.append(f"link add p{i} address {near} type veth peer name eth0 address {far} netns {server}")
        lines += pod_setup(f"p{i}", (f"10.{net}.255.1", f"fd00:{net}::ffff") if i == 0 else (), far, default=False)
        for family, gateway in GATEWAYS.items():
            source = f"10.{net}.255.1" if family == 4 else f"fd00:{net}::ffff"
            lines.append(f"route add {addresses[family][i]} via {gateway} dev p{i} onlink src {source}")
    ip(lines, client)
    for i, server in enumerate(servers):
        ip(pod_setup("eth0", (addresses[4][i], addresses[6][i]), near), server)
    return Link(name, NETNS / client, tuple(NETNS / server for server in servers), addresses)


def forward(spaces: Spaces, net: int) -> Link:
    """Two pods whose host ends are in a third namespace and joined by programs/forward.bpf.c alone."""
    host, client, server = spaces.add("fwd-h", "fwd-c", "fwd-s")
    program = build.bpf_object(build.ROOT / "tests/bench/programs/forward.bpf.c")
    ends = {4: (f"10.{net}.0.2", f"10.{net}.0.1"), 6: (f"fd00:{net}::2", f"fd00:{net}::1")}
    for slot, (index, pod) in enumerate(zip(FORWARD_INDEXES, (client, server), strict=True)):
        ip(
            [
                f"link add h{index} index {index} address {mac(1, index)} type veth "
                f"peer name eth0 address {mac(2, index)} netns {pod}",
                f"link set h{index} addrgenmode none",
                f"link set h{index} up",
            ],
            host,
        )
        ip(pod_setup("eth0", (ends[4][slot], ends[6][slot]), mac(1, index)), pod)
        run(["tc", "-n", host, "qdisc", "add", "dev", f"h{index}", "clsact"])
        run(
            [
                "tc",
                "-n",
                host,
                "filter",
                "add",
                "dev",
                f"h{index}",
                "ingress",
                "bpf",
                "direct-action",
                "object-file",
                str(program),
                "section",
                "tc",
            ]
        )
    return Link("forward", NETNS / client, (NETNS / server,), {family: (ends[family][1],) for family in ends})
