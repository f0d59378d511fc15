"""Small parts: locks, the configuration list, claims."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from ciliate.model.identity import Reserved
from ciliate.model.ipam import NodeRange
from ciliate_cni import conflist
from ciliate_cni.claims import claims
from ciliate_cni.config import CniConfig
from ciliate_cni.locks import NamedLocks


async def test_calls_for_one_name_go_one_after_another_and_leave_nothing() -> None:
    locks = NamedLocks()
    inside: list[str] = []

    async def use(name: str) -> None:
        async with locks.hold(name):
            inside.append(name)
            assert inside.count(name) == 1
            await asyncio.sleep(0)
            inside.remove(name)

    await asyncio.gather(*(use(name) for name in "ab" * 20))
    assert locks._locks == {}


def test_an_exclusive_configuration_sets_others_aside_and_gives_them_back(run_dir: Path) -> None:
    config = CniConfig(conf_dir=str(run_dir / "net.d"), bin_dir=str(run_dir / "bin"), exclusive=True)
    folder = run_dir / "net.d"
    folder.mkdir()
    (folder / "10-other.conflist").write_text("{}")
    (folder / "notes.txt").write_text("kept")
    conflist.install(config, run_dir / "cni.sock")
    assert {p.name for p in folder.iterdir()} == {"05-ciliate.conflist", "10-other.conflist.ciliate_bak", "notes.txt"}
    written = json.loads((folder / "05-ciliate.conflist").read_text())
    assert written["plugins"][0]["socket"] == str(run_dir / "cni.sock")
    before = (folder / "05-ciliate.conflist").stat().st_mtime_ns
    conflist.install(config, run_dir / "cni.sock")
    assert (folder / "05-ciliate.conflist").stat().st_mtime_ns == before
    for _ in range(2):
        conflist.uninstall(config)
    assert {p.name for p in folder.iterdir()} == {"10-other.conflist", "notes.txt"}


def test_the_hosts_addresses_are_the_hosts_and_ranges_are_unresolved() -> None:
    ranges = [NodeRange(cidr="10.0.0.0/24", family=4, router="10.0.0.1", pool="p")]
    found = {c.prefix: c for c in claims(["10.0.0.1", "fd00::1"], ranges)}
    assert found["10.0.0.1/32"].identity == Reserved.HOST
    assert found["fd00::1/128"].identity == Reserved.HOST
    assert found["10.0.0.0/24"].unresolved
