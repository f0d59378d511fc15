"""Finding plugins: each failure is refused by name, and the others go on."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from ciliate.loading import load_driver, load_plugins

from tests.unit.core.strangers import install

MODULE = """
from ciliate.plugin import Plugin
from ciliate.hookspecs import hookimpl
class Good(Plugin):
    name = "good"
    @hookimpl
    def ciliate_maps(self): return []
class Needy(Plugin):
    name = "needy"
    needs = ("good",)
    needs_same_process = ("good",)
class Lonely(Plugin):
    name = "lonely"
    needs_same_process = ("absent",)
class BadHook(Plugin):
    name = "badhook"
    @hookimpl
    def ciliate_setup(self, contxt): pass
class Misspelt(Plugin):
    name = "misspelt"
    @hookimpl
    def ciliate_setpu(self, context): pass
class Unmarked(Plugin):
    name = "unmarked"
    def ciliate_tables(self): return []
class Here(Plugin):
    name = "here"
    needs = ("there",)
class There(Plugin):
    name = "there"
    needs = ("here",)
class Operators(Plugin):
    name = "operators"
    roles = ("operator",)
class NoPlugin: pass
class Nameless(Plugin): pass
class Impostor(Plugin):
    name = "good"
class Raises(Plugin):
    def __init__(self): raise RuntimeError("no luck")
"""


ENTRY_POINTS = """
[ciliate.plugins]
good = strangers:Good
needy = strangers:Needy
lonely = strangers:Lonely
badhook = strangers:BadHook
misspelt = strangers:Misspelt
unmarked = strangers:Unmarked
here = strangers:Here
there = strangers:There
operators = strangers:Operators
noplugin = strangers:NoPlugin
nameless = strangers:Nameless
impostor = strangers:Impostor
raises = strangers:Raises
missing = nowhere:Missing
[ciliate.ipam]
strange = strangers:Good
"""


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with good and bad plugins, as an installed package would be."""
    install(tmp_path, monkeypatch, "strangers", MODULE, ENTRY_POINTS)


@pytest.mark.usefixtures("strangers")
def test_bad_plugins_are_refused_by_name_and_good_ones_ordered_by_need() -> None:
    names = [
        "needy",
        "good",
        "lonely",
        "badhook",
        "misspelt",
        "unmarked",
        "here",
        "there",
        "operators",
        "noplugin",
        "nameless",
        "impostor",
        "raises",
        "missing",
        "none",
    ]
    loaded = load_plugins(names, "agent")
    assert list(loaded.plugins) == ["good", "needy"]
    assert "absent" in loaded.refused["lonely"]
    assert "contxt" in loaded.refused["badhook"]
    assert "no hook ciliate_setpu; there are" in loaded.refused["misspelt"]
    assert "ciliate_tables is not marked by @hookimpl" in loaded.refused["unmarked"]
    assert "circle" in loaded.refused["here"]
    assert "not a subclass" in loaded.refused["noplugin"]
    assert "calls itself ''" in loaded.refused["nameless"]
    assert "calls itself 'good'" in loaded.refused["impostor"]
    assert re.search(r"no luck \(.*strangers\.py:\d+\)$", loaded.refused["raises"])
    assert "nowhere" in loaded.refused["missing"]
    assert "is not installed" in loaded.refused["none"]
    assert "operators" not in loaded.refused


@pytest.mark.usefixtures("strangers")
def test_what_is_not_listed_is_not_imported() -> None:
    load_plugins([], "agent")
    assert "strangers" not in sys.modules


@pytest.mark.usefixtures("strangers")
def test_an_unknown_driver_is_named_with_those_there_are() -> None:
    assert load_driver("ciliate.ipam", "strange").name == "good"
    with pytest.raises(LookupError, match=r"no driver .other. in ciliate\.ipam; installed are .*strange"):
        load_driver("ciliate.ipam", "other")
