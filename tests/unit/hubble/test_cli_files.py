"""Flows that were written to a file are shown as a server's are."""

from __future__ import annotations

from pathlib import Path

import pytest
from ciliate.cli.dispatch import CommandError
from ciliate_hubble.cli.flags import parse
from ciliate_hubble.cli.observe import observe_flows
from ciliate_hubble.cli.options import OBSERVE

from tests.unit.hubble.serving import ANSWERS, answers


def _show(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[list[str], str]:
    observe_flows(parse(words, OBSERVE)[0])
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err


def test_a_file_is_shown_whole_or_its_oldest_or_newest(capsys: pytest.CaptureFixture[str]) -> None:
    whole, errors = _show(capsys, "--input-file", str(ANSWERS))
    assert "nodes are unavailable" in errors
    assert len(whole) == sum(answer.HasField("flow") or answer.HasField("lost_events") for answer in answers())
    assert _show(capsys, "--input-file", str(ANSWERS), "--first", "4", "-s")[0] == whole[:2]
    assert _show(capsys, "--input-file", str(ANSWERS), "--last", "8", "-s")[0] == whole[-3:]


def test_times_bound_a_file_too(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--since", "2026-01-02T03:04:08.1Z", "--until", "2026-01-02T03:04:08.3Z")
    shown, _ = _show(capsys, "--input-file", str(ANSWERS), "--time-format", "RFC3339Milli", "-s", *words)
    assert len([line for line in shown if not line.startswith("N/A")]) == 3


def test_lines_that_are_no_flows_are_told_of_and_passed_over(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "flows"
    flow = '{"flow": {"verdict": "DROPPED", "new": 1}, "newer": 2}'
    path.write_text("\n".join(("nonsense", "", "[1]", flow, '{"verdict": "FORWARDED"}', '{"flow": 3}')))
    shown, errors = _show(capsys, "--input-file", str(path))
    assert [line.split()[5] for line in shown] == ["DROPPED", "FORWARDED"]
    assert [line.split()[1] for line in errors.splitlines()] == ["1", "3", "6"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--input-file", "/nowhere"), "/nowhere: No such file"),
        (("--input-file", str(ANSWERS), "-f"), "can't be combined"),
        (("--input-file", str(ANSWERS), "--pod", "a"), "can't be combined with filters"),
    ],
)
def test_what_a_file_can_not_answer_is_refused(words: tuple[str, ...], problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        observe_flows(parse(words, OBSERVE)[0])
