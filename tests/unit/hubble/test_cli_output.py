"""What `ciliate hubble` prints is what `hubble` prints."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from ciliate.cli.dispatch import CommandError
from ciliate_hubble import commands
from ciliate_hubble.api import flow_pb2, observer_pb2
from google.protobuf import json_format
from grpc_health.v1 import health_pb2

from tests.unit.hubble.golden import GOLDEN, expected
from tests.unit.hubble.serving import Serving

APPS: dict[str, typer.Typer] = {
    "observe": commands.observe,
    "status": commands.status,
    "list": commands.list_,
    "watch": commands.watch,
}
Run = Callable[[str], tuple[str, str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Serving]]:
    path = tmp_path_factory.mktemp("hubble") / "hubble.sock"
    serving = Serving(f"unix:{path}")
    yield f"unix://{path}", serving
    serving.stop()


@pytest.fixture
def run(
    server: tuple[str, Serving], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Run]:
    """Runs a command line of `ciliate hubble` in this process; gives what it printed and its errors."""
    for name, value in (("HUBBLE_SERVER", server[0]), ("TZ", "UTC"), ("HOME", str(tmp_path))):
        monkeypatch.setenv(name, value)
    time.tzset()

    def run(line: str) -> tuple[str, str]:
        command, *words = shlex.split(line)
        try:
            APPS[command](words, prog_name=f"ciliate hubble {command}", standalone_mode=False)
        finally:
            captured = capfd.readouterr()
        return captured.out, captured.err

    yield run
    monkeypatch.undo()
    time.tzset()


def _objects(text: str) -> list[object]:
    decoder, found = json.JSONDecoder(), []
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:]
    return found


@pytest.mark.parametrize("name", GOLDEN)
def test_output_is_that_of_hubble(name: str, run: Run) -> None:
    printed, errors = run(GOLDEN[name])
    if name.endswith("json"):
        assert _objects(printed) == _objects(expected(name))
        assert _objects(errors) == _objects(expected(name, errors=True))
    elif name.startswith("status"):
        assert printed.splitlines()[1:] == expected(name).splitlines()[1:]  # the first names the server's socket
    else:
        # hubble puts a line between what it prints to standard output and what it prints to the other; we do within one
        assert printed == expected(name).removeprefix("------------\n")
        assert errors == expected(name, errors=True)


def test_json_lines_are_one_answer_each_with_the_names_of_the_api(run: Run, server: tuple[str, Serving]) -> None:
    printed, _ = run("observe -o jsonpb -s")
    flows = [json_format.Parse(line, observer_pb2.GetFlowsResponse()) for line in printed.splitlines()]
    assert flows == [
        each for each in server[1].answering.flows if each.WhichOneof("response_types") in ("flow", "lost_events")
    ]


def test_legacy_json_is_the_bare_flow(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBLE_COMPAT", "legacy-json-output")
    assert json.loads(run("observe -o json -s")[0].splitlines()[0])["Summary"] == "TCP Flags: SYN"


def _flow(**fields: object) -> observer_pb2.GetFlowsResponse:
    flow = json_format.ParseDict(fields, flow_pb2.Flow())
    return observer_pb2.GetFlowsResponse(flow=flow)


@pytest.fixture
def shown(server: tuple[str, Serving], run: Run) -> Iterator[Callable[..., list[str]]]:
    """Prints one flow with some flags; gives the lines."""
    whole = server[1].answering.flows

    def show(flags: str, **fields: object) -> list[str]:
        server[1].answering.flows = [_flow(**fields)]
        return run(f"observe {flags}")[0].splitlines()

    yield show
    server[1].answering.flows = whole


DENIED = {
    "verdict": "DROPPED",
    "drop_reason_desc": "POLICY_DENIED",
    "event_type": {"type": 1, "sub_type": 133},
    "ingress_denied_by": [
        {"kind": "CiliumNetworkPolicy", "namespace": "shop", "name": "db", "labels": ["ciliate:rule=spec.ingress"]}
    ],
}


def test_a_drop_is_told_in_one_line_with_its_rule(shown: Callable[..., list[str]]) -> None:
    _, why = shown("--rule", **DENIED)
    assert why == "    Policy denied: ingress denied by CiliumNetworkPolicy shop/db spec.ingress"


def test_a_drop_that_no_policy_made_is_told_with_its_place(shown: Callable[..., list[str]]) -> None:
    place = {"name": "neighbour.h", "line": 7}
    first, why = shown(
        "--rule", verdict="DROPPED", drop_reason_desc=240, event_type={"type": 1, "sub_type": 240}, file=place
    )
    assert "Address in a pod range has no known identity yet DROPPED" in first
    assert why == "    Address in a pod range has no known identity yet at neighbour.h:7"


def test_an_allowed_flow_names_the_rules_of_both_sides(shown: Callable[..., list[str]]) -> None:
    allowed = {
        "egress_allowed_by": [{"name": "allow-all"}],
        "ingress_allowed_by": [{"kind": "NetworkPolicy", "namespace": "n", "name": "p"}],
    }
    _, why = shown("--rule", verdict="FORWARDED", event_type={"type": 5}, **allowed)
    assert why == "    egress allowed by allow-all; ingress allowed by NetworkPolicy n/p"


def test_a_flow_that_nobody_judged_has_no_line_of_reasons(shown: Callable[..., list[str]]) -> None:
    assert len(shown("--rule", verdict="FORWARDED", event_type={"type": 4})) == 1


def test_dict_and_table_have_a_place_for_the_rule(shown: Callable[..., list[str]]) -> None:
    why = "Policy denied: ingress denied by CiliumNetworkPolicy shop/db spec.ingress"
    assert f"{'WHY':>11}: {why}" in shown("--rule -o dict", **DENIED)
    table = shown("--rule -o table", **DENIED)
    assert table[0].endswith("WHY")
    assert table[1].endswith(why)


def test_colours_are_for_terminals(shown: Callable[..., list[str]]) -> None:
    assert "\x1b[31mDROPPED" in shown("--color always", **DENIED)[0]
    assert "\x1b" not in "".join(shown("--rule", **DENIED) + shown("--rule --color never", **DENIED))


def test_a_server_that_does_not_serve_is_no_success(run: Run, server: tuple[str, Serving]) -> None:
    server[1].health.set("hubble.server.Observer", health_pb2.HealthCheckResponse.NOT_SERVING)
    try:
        with pytest.raises(CommandError, match="not serving"):
            run("status")
    finally:
        server[1].health.set("hubble.server.Observer", health_pb2.HealthCheckResponse.SERVING)


def test_help_lists_every_flag_without_asking_anybody(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBLE_SERVER", "unix:///nowhere")
    printed, _ = run("observe --help")
    assert all(f"--{name}" in printed for name in ("not", "from-pod", "cel-expression", "rule", "tls-server-name"))
    assert "deciding" not in printed and "None" not in printed


@pytest.mark.parametrize(("line", "problem"), [("list", "say what: nodes or namespaces"), ("watch", "say what: peers")])
def test_a_command_without_its_object_says_which_there_are(line: str, problem: str, run: Run) -> None:
    with pytest.raises(CommandError, match=problem):
        run(line)
