"""The host: plugins set up in order, failures refused by name, all of it shown on the API socket, and stopped again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ciliate.api.client import Client
from ciliate.config import ConfigError, load_settings
from ciliate.host import Host
from ciliate.model.kinds import NAMESPACE

from tests.unit.core.strangers import install

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="no root: the API socket answers root only")

MODULE = """
from typing import Protocol
from ciliate.api.routes import Route
from ciliate.hookspecs import hookimpl
from ciliate.model.base import Row
from ciliate.plugin import Plugin, Section
from ciliate.tables.spec import Durability, TableSpec

class Pet(Row, frozen=True):
    name: str

PETS = TableSpec("pets", Pet, key=("name",), durability=Durability.COMMIT, doc="Pets.")

class Food(Protocol):
    def serve(self) -> str: ...

class Settings(Section):
    pet: str = "rex"

calls = []

class Kitchen(Plugin):
    name = "kitchen"
    @hookimpl
    def ciliate_setup(self, context):
        calls.append("kitchen up")
        context.provide(Food, self)
        context.health.not_ready("the stove is cold")
    @hookimpl
    def ciliate_stop(self): calls.append("kitchen down")
    def serve(self): return "soup"

class Zoo(Plugin):
    name = "zoo"
    config = Settings
    needs = ("kitchen",)
    needs_same_process = ("kitchen",)
    @hookimpl
    def ciliate_tables(self): return [PETS]
    @hookimpl
    def ciliate_setup(self, context):
        calls.append("zoo up with " + context.require(Food).serve())
        writer = context.tables.writer(PETS)
        async def feed():
            writer.put(Pet(name=context.config.pet))
            writer.complete()
        context.spawn("feed", feed)
    @hookimpl
    def ciliate_routes(self):
        async def loud(request): return "roar"
        return [Route("GET", "/zoo", loud, "Roar.")]
    @hookimpl
    def ciliate_stop(self): calls.append("zoo down")

class Broken(Plugin):
    name = "broken"
    @hookimpl
    def ciliate_setup(self, context): raise OSError("no water")

class Heart(Plugin):
    name = "heart"
    essential = True
    @hookimpl
    def ciliate_setup(self, context): context.health.not_ready("it skips a beat")

class Lungs(Plugin):
    name = "lungs"
    essential = True
    @hookimpl
    def ciliate_setup(self, context):
        async def breathe(): raise OSError("out of breath")
        context.spawn("breathe", breathe)

class Dependent(Plugin):
    name = "dependent"
    needs = ("broken",)
    needs_same_process = ("broken",)
    @hookimpl
    def ciliate_setup(self, context): calls.append("never")
"""
ENTRY_POINTS = """
[ciliate.plugins]
kitchen = menagerie:Kitchen
zoo = menagerie:Zoo
broken = menagerie:Broken
dependent = menagerie:Dependent
heart = menagerie:Heart
lungs = menagerie:Lungs
missing = menagerie:Missing
"""


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Flags of a process with all four plugins, its folders below the test's own."""
    install(tmp_path, monkeypatch, "menagerie", MODULE, ENTRY_POINTS)
    yield [
        "plugins=[dependent, zoo, broken, kitchen]",
        f"node.run_dir={tmp_path}/run",
        f"node.state_dir={tmp_path}/state",
        f"node.bpffs={tmp_path}/bpf",
        f"store.path={tmp_path}/store.sqlite",
        "zoo.pet=tom",
    ]


async def test_a_process_lives_from_setup_to_stop(flags: list[str], tmp_path: Path) -> None:
    host = Host.load(load_settings(None, flags, {}), "agent", "agent")
    await host.start()
    from menagerie import calls  # type: ignore[import-not-found]

    def look() -> tuple[Any, Any, Any, Any]:
        with Client(tmp_path / "run/agent.sock") as client:
            return client.get("/zoo"), client.get("/status"), client.get("/plugins"), client.get("/tables/pets")

    roar, status, plugins, pets = await asyncio.to_thread(look)
    assert roar == "roar"
    assert (status["ready"], status["reasons"]) == (True, {})
    assert status["degraded"]["kitchen"] == ["ready: the stove is cold"]
    assert "no water" in status["degraded"]["broken"][0]
    assert "broken" in status["degraded"]["dependent"][0]
    states = {row["name"]: row["state"] for row in plugins}
    assert (states["zoo"], states["broken"], states["cni"]) == ("enabled", "refused", "available")
    assert pets["rows"] == [{"name": "tom"}]
    assert pets["complete"]
    await host.stop()
    assert calls == ["kitchen up", "zoo up with soup", "zoo down", "kitchen down"]
    assert not (tmp_path / "run/agent.sock").exists()


@pytest.mark.parametrize(
    ("name", "reason"), [("heart", "it skips a beat"), ("missing", "can't be imported"), ("lungs", "out of breath")]
)
async def test_what_is_essential_or_may_be_makes_the_process_not_ready(
    flags: list[str], name: str, reason: str
) -> None:
    host = Host.load(load_settings(None, [*flags, f"plugins=[kitchen, {name}]"], {}), "agent", "agent")
    await host.start()
    try:
        async with asyncio.timeout(5):
            while name not in host.ready():
                await asyncio.sleep(0.01)
        assert reason in host.ready()[name][0]
        assert list(host.ready()) == [name] and list(host.degraded()) == ["kitchen"]
    finally:
        await host.stop()


async def test_a_store_that_is_away_makes_it_degraded_and_no_more(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "store.sqlite.users").touch()  # there was a store, which is gone
    host = Host.load(load_settings(None, [*flags, "plugins=[]"], {}), "agent", "agent")
    await host.start()
    try:
        assert host.ready() == {} and "is gone" in host.degraded()["store"][0]
        (tmp_path / "store.sqlite.users").unlink()
        assert (await host.store.list(NAMESPACE)).items
        assert host.degraded() == {}
    finally:
        await host.stop()


def test_a_bad_setting_of_a_plugin_stops_the_start(flags: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"zoo\.pett \(flag --set zoo\.pett\): unknown key; known are pet"):
        Host.load(load_settings(None, [*flags, "zoo.pett=x"], {}), "agent", "agent")


def test_a_section_that_nobody_knows_stops_the_start(flags: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"circus \(flag --set circus\.tents\): neither a section of the core nor a"):
        Host.load(load_settings(None, [*flags, "circus.tents=3"], {}), "agent", "agent")
