"""The command line's frame: every command can be found, loads, and explains itself."""

from __future__ import annotations

import os
from importlib.metadata import entry_points

import pytest
from ciliate.cli.dispatch import CONTEXT, KUBECONFIG, _without_options_of_all, run


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


@pytest.mark.parametrize(
    ("words", "kept", "said"),
    [
        (["--context", "a", "status"], ["status"], ("a", None)),
        (["status", "--context=a", "-o", "json", "--kubeconfig", "f"], ["status", "-o", "json"], ("a", "f")),
        (
            ["lab", "exec", "x", "--", "run", "--context", "b"],
            ["lab", "exec", "x", "--", "run", "--context", "b"],
            None,
        ),
    ],
)
def test_options_of_all_commands_may_stand_anywhere_but_behind_a_double_dash(
    words: list[str], kept: list[str], said: tuple[str | None, str | None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", {})
    assert _without_options_of_all(words) == kept
    assert (os.environ.get(CONTEXT), os.environ.get(KUBECONFIG)) == (said or (None, None))


def test_an_option_of_all_without_a_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("ciliate", "ciliate.commands", "Summary.", ["status", "--context"])
    assert ended.value.code == 2
    assert "--context needs a value" in capsys.readouterr().err
