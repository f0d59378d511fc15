"""The machines of a cluster as network namespaces on one bridge; no packet leaves them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from ipaddress import ip_network

from tests.kubernetes.control_plane import SERVICE_ADDRESS

UNDERLAY = (ip_network("192.168.77.0/24"), ip_network("fd77::/64"))
_SERVICE_RULES = """
table ip cluster {{
  chain output {{ type nat hook output priority -100; {rule} }}
  chain prerouting {{ type nat hook prerouting priority -100; {rule} }}
  chain postrouting {{ type nat hook postrouting priority 100; oifname "eth0" ip saddr != {own} masquerade; }}
}}
table ip6 cluster {{
  chain postrouting {{ type nat hook postrouting priority 100; oifname "eth0" ip6 saddr != {own6} masquerade; }}
}}
"""


def run(*command: str, stdin: str = "") -> str:
    """A command's output. AssertionError with its words if it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Host:
    """A machine: a network namespace with eth0 and an address of each family."""

    netns: str
    ipv4: str
    ipv6: str

    @property
    def enter(self) -> list[str]:
        """A command's prefix: not `ip netns exec`, which mounts a new /sys and so loses the control groups."""
        return ["nsenter", f"--net=/run/netns/{self.netns}"]

    def route_services(self, control_plane: str) -> None:
        """What kube-proxy would do for the one service that an agent needs: the API server's. Pods reach the wire."""
        rule = f"ip daddr {SERVICE_ADDRESS} tcp dport 443 dnat to {control_plane}:6443;"
        run(*self.enter, "nft", "-f", "-", stdin=_SERVICE_RULES.format(rule=rule, own=self.ipv4, own6=self.ipv6))


class Network:
    """A bridge in a namespace, and hosts on it. Interface names are within namespaces: only theirs must be unique."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._made: list[str] = []
        self._bridge = f"{name}-wire"

    def start(self) -> None:
        """Make the bridge."""
        self._namespace("wire")
        self._ip(self._bridge, "link", "add", "wire", "type", "bridge")
        self._ip(self._bridge, "link", "set", "wire", "up")
        for prefix in UNDERLAY:
            self._ip(self._bridge, "address", "add", f"{prefix[254]}/{prefix.prefixlen}", "dev", "wire", "nodad")

    def host(self, name: str, number: int) -> Host:
        """A machine with the number's addresses; the bridge is its gateway."""
        netns = self._namespace(name)
        addresses = [str(prefix[number]) for prefix in UNDERLAY]
        self._ip(netns, "link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", self._bridge)
        self._ip(self._bridge, "link", "set", "dev", name, "master", "wire", "up")
        self._ip(netns, "link", "set", "eth0", "up")
        for prefix, address in zip(UNDERLAY, addresses, strict=True):
            self._ip(netns, "address", "add", f"{address}/{prefix.prefixlen}", "dev", "eth0", "nodad")
            self._ip(netns, "route", "add", "default", "via", str(prefix[254]))
        return Host(netns, *addresses)

    def close(self) -> None:
        """Remove the namespaces, and with them all that is in them."""
        for netns in reversed(self._made):
            subprocess.run(["ip", "netns", "delete", netns], capture_output=True, check=False)
        self._made.clear()

    def _namespace(self, name: str) -> str:
        netns = f"{self.name}-{name}"
        run("ip", "netns", "add", netns)
        self._made.append(netns)
        self._ip(netns, "link", "set", "lo", "up")
        return netns

    def _ip(self, netns: str, *words: str) -> None:
        run("ip", "-n", netns, *words)
