"""Configuration: layers, origins and refusals that name path and source."""

from __future__ import annotations

from pathlib import Path

import pytest
from ciliate.config import ConfigError, core_config, load_settings
from ciliate.places import open_store
from ciliate.plugin import Section

from tests.unit.core.strangers import install


class Pets(Section):
    """A plugin's section."""

    count: int = 1
    names: list[str] = []


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_later_layers_win_and_each_value_knows_its_origin(tmp_path: Path) -> None:
    file = write(tmp_path / "ciliate.yaml", "pets: {count: 2, names: [rex]}\ncluster: {name: one}\n")
    settings = load_settings(file, ["cluster.name=three"], {"CILIATE_PETS__COUNT": "3", "CILIATE_LAB": "x"})
    assert settings.section("pets", Pets) == Pets(count=3, names=["rex"])
    assert core_config(settings).cluster.name == "three"
    assert settings.origin("pets.count") == "environment CILIATE_PETS__COUNT"
    assert settings.origin("pets.names") == str(file)
    assert settings.origin("cluster.name") == "flag --set cluster.name"
    assert settings.origin("node.name") == "default"


def test_an_unknown_key_is_refused_with_path_and_origin(tmp_path: Path) -> None:
    file = write(tmp_path / "ciliate.yaml", "pets: {cuont: 2}\n")
    with pytest.raises(ConfigError, match=r"pets\.cuont \(.*ciliate\.yaml\): unknown key; known are count, names"):
        load_settings(file, (), {}).section("pets", Pets)


def test_a_wrong_type_is_refused_with_path_and_origin() -> None:
    with pytest.raises(ConfigError, match=r"pets\.count \(flag --set pets\.count\): .*int"):
        load_settings(None, ["pets.count=many"], {}).section("pets", Pets)


def test_a_configmap_folder_has_a_file_a_key(tmp_path: Path) -> None:
    write(tmp_path / "pets.count", "7\n")
    write(tmp_path / "plugins", "cni, ipam\n")
    (tmp_path / "..data").mkdir()
    settings = load_settings(tmp_path, (), {})
    assert settings.section("pets", Pets).count == 7
    assert core_config(settings).plugins == ["cni", "ipam"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "must be a mapping"),
        ("a: [", "is not YAML"),
        ("\xff\xfe", "is not YAML"),
        ("plugins: 5\n", "must be a list of plugin names"),
        ("node: 5\n", "node .*must be a section"),
    ],
)
def test_a_malformed_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "ciliate.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=message):
        core_config(load_settings(file, (), {}))


def test_a_missing_file_and_a_malformed_flag_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_settings(tmp_path / "none.yaml", (), {})
    with pytest.raises(ConfigError, match=r"must be section\.key=value"):
        load_settings(None, ["oops"], {})
    with pytest.raises(ConfigError, match="is a value, not a section"):
        load_settings(None, ["a=1", "a.b=2"], {})


def test_the_environment_can_name_a_section_with_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "dashed", "", "[ciliate.plugins]\ndenied-flows = dashed:Plugin\n")
    environment = {"CILIATE_DENIED_FLOWS__MAX_SIZE": "9", "CILIATE_OTHER_THINGS__COUNT": "1"}
    settings = load_settings(None, environment=environment)
    assert settings.tree == {"denied-flows": {"max_size": 9}, "other_things": {"count": 1}}


def test_an_option_of_the_store_is_refused_with_path_and_origin(tmp_path: Path) -> None:
    file = write(tmp_path / "ciliate.yaml", f"store: {{path: {tmp_path}/store.sqlite, histroy: 5}}\n")
    with pytest.raises(ConfigError, match=r"store\.histroy \(.*ciliate\.yaml\): unknown key; known are path, history"):
        open_store(core_config(load_settings(file, (), {})))
    wrong = load_settings(file, (), {"CILIATE_STORE__POLL": "often"})
    del wrong.tree["store"]["histroy"]
    with pytest.raises(ConfigError, match=r"store\.poll \(environment CILIATE_STORE__POLL\): Expected `float`"):
        open_store(core_config(wrong))
    with pytest.raises(ConfigError, match="history, history_bytes, object_bytes must be at least 1"):
        open_store(core_config(load_settings(None, [f"store.path={tmp_path}/store.sqlite", "store.history=0"], {})))
    with pytest.raises(ConfigError, match=r"store \(.*store.*\): must be a section"):
        core_config(load_settings(None, ["store=local"], {}))
