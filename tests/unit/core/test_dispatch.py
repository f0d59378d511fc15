"""The command line's frame: every command can be found, loads, and explains itself."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest
from ciliate.cli.dispatch import run


@pytest.mark.parametrize("group", ["ciliate.commands", "ciliate.dbg_commands"])
def test_every_command_loads_and_has_help(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    for point in entry_points(group=group):
        with pytest.raises(SystemExit) as ended:
            run("ciliate", group, "Summary.", [*point.name.split("."), "--help"])
        assert ended.value.code == 0, point.name
        assert "Usage" in capsys.readouterr().out


def test_unknown_commands_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("ciliate-dbg", "ciliate.dbg_commands", "Summary.", ["bpf", "nonsense"])
    assert ended.value.code == 2
    assert "ciliate-dbg bpf: no command 'nonsense'" in capsys.readouterr().err


def test_help_lists_nested_commands_without_importing_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("ciliate-dbg", "ciliate.dbg_commands", "Summary.", ["--help"])
    assert ended.value.code == 0
    assert "bpf" in capsys.readouterr().out
