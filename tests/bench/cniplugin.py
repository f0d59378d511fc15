"""Calls of a CNI plugin as a runtime makes them: a process each, timed from its start to its end by cnirun.c."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.bench import build, spaces

REFERENCE = Path("/usr/lib/cni")
"""Where Debian's containernetworking-plugins are."""
INTERFACE = "eth0"


class CniError(Exception):
    """A call failed; the plugin's own words are in the message."""


@dataclass(frozen=True)
class Container:
    """A container's id and the path of its network namespace."""

    id: str
    netns: Path


@dataclass(frozen=True)
class Calls:
    """What a batch of calls gave. `took` and `ended` are milliseconds, one a container, in the order given."""

    took: npt.NDArray[np.float64]
    ended: npt.NDArray[np.float64]  # after the first call's start
    results: tuple[dict[str, Any], ...]  # what each call printed; empty where nothing


@dataclass(frozen=True)
class Plugin:
    """A CNI plugin: its program, its configuration, and the namespace that is its host's (None: this process's)."""

    name: str
    binary: Path
    config: dict[str, Any]
    host: Path | None
    paths: tuple[Path, ...] = (REFERENCE,)

    def call(self, command: str, containers: Sequence[Container], at_once: int = 1) -> Calls:
        """ADD or DEL for all containers, `at_once` at a time. Raises CniError for the first that failed."""
        with tempfile.TemporaryDirectory(prefix="cbench-cni-") as folder:
            config = Path(folder, "config.json")
            config.write_text(json.dumps(self.config))
            outputs = Path(folder, "outputs")
            outputs.mkdir()
            runner = [build.program(Path(__file__).with_name("cnirun.c"))]
            words: list[str] = [f"CNI_PATH={':'.join(map(str, self.paths))}", f"CNI_IFNAME={INTERFACE}"]
            words += map(str, [*runner, self.binary, command, config, outputs, at_once])
            enter = [] if self.host is None else ["nsenter", f"--net={self.host}"]
            jobs = "".join(f"{container.id} {container.netns}\n" for container in containers)
            lines = spaces.run([*enter, "env", *words], jobs).splitlines()
            return self._read(command, containers, lines, outputs)

    def _read(self, command: str, containers: Sequence[Container], lines: list[str], outputs: Path) -> Calls:
        figures = np.array([line.split() for line in lines], float).reshape(-1, 3)
        said = [(outputs / str(i)).read_text(errors="replace") for i in range(len(lines))]
        bad = [i for i, status in enumerate(figures[:, 0]) if status]
        if bad:
            first = containers[bad[0]]
            raise CniError(
                f"{self.name}: {command} failed for {len(bad)} of {len(lines)} containers; the first, "
                f"{first.id} in {first.netns}, status {figures[bad[0], 0]:.0f}: {said[bad[0]].strip()}"
            )
        results = tuple(json.loads(text) if text.strip() else {} for text in said)
        return Calls(figures[:, 1] / 1e6, figures[:, 2] / 1e6, results)


def ptp(host: str, state: Path, net: int, families: tuple[int, ...] = (4, 6), masquerade: bool = False) -> Plugin:
    """The reference: `ptp` with `host-local`, for a host namespace of that name. `state`: an empty folder."""
    ranges = {4: f"10.{net}.0.0/16", 6: f"fd00:{net}::/64"}
    routes = {4: "0.0.0.0/0", 6: "::/0"}
    config = {
        "cniVersion": "0.4.0",
        "name": f"cbench{net}",
        "type": "ptp",
        "ipMasq": masquerade,
        "ipam": {
            "type": "host-local",
            "dataDir": str(state),
            "ranges": [[{"subnet": ranges[family]}] for family in families],
            "routes": [{"dst": routes[family]} for family in families],
        },
    }
    return Plugin(f"ptp IPv{'+'.join(map(str, families))}", REFERENCE / "ptp", config, spaces.NETNS / host)


def no_duplicate_detection(netns: str) -> None:
    """Switch duplicate address detection off in a namespace: with it, an ADD of `ptp` takes 1.9 s."""
    spaces.sysctl(netns, "net/ipv6/conf/default/accept_dad=0", "net/ipv6/conf/all/accept_dad=0")


def addresses(result: dict[str, Any]) -> dict[int, str]:
    """The addresses in an ADD's result, by family."""
    plain = [entry["address"].split("/")[0] for entry in result["ips"]]
    return {6 if ":" in address else 4: address for address in plain}


def ptp_link(made: spaces.Spaces, state: Path, net: int, masquerade: bool = True) -> spaces.Link:
    """Two pods joined by the reference plugin. Masquerading, as it is deployed, brings conntrack into the path."""
    name = "ptp" if masquerade else "ptp plain"
    host, client, server = made.add(*(f"ptp{net}-{part}" for part in ("h", "c", "s")))
    for space in (host, client, server):
        no_duplicate_detection(space)
    pods = [Container(space, spaces.NETNS / space) for space in (client, server)]
    added = ptp(host, state, net, masquerade=masquerade).call("ADD", pods)
    reached = addresses(added.results[1])
    return spaces.Link(name, pods[0].netns, (pods[1].netns,), {family: (reached[family],) for family in reached})
