"""The agent is upgraded and downgraded between two versions of itself, under traffic."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
from ciliate.api.client import Client
from ciliate_lab.supervisor import ProcessSpec

from tests.node.faults.inventory import await_equal, settled
from tests.node.faults.kills import Killer
from tests.node.faults.steady import NAMESPACE, Steady
from tests.node.faults.test_agent import await_next, log_of
from tests.node.faults.versions import next_version
from tests.node.labs import Lab


def replace_agent(lab: Lab, program: str) -> str:
    """End the agent and have the supervisor start another program in its stead; the version that then runs."""
    specs = msgspec.json.decode(lab.place.processes.read_bytes(), type=list[ProcessSpec])
    changed = [
        msgspec.structs.replace(spec, argv=[program, *spec.argv[1:]]) if spec.name == "agent" else spec
        for spec in specs
    ]
    lab.place.processes.write_bytes(msgspec.json.encode(changed))
    lab.signal("supervisor", signal.SIGKILL)
    old = lab.signal("agent", signal.SIGTERM)
    Killer(lab, 0).resume()
    await_next(lab, old)
    with Client(lab.place.node(1).socket("agent")) as client:
        return str(client.get("/status")["version"])


def endpoint(lab: Lab, pod: str) -> dict[str, object]:
    """The row of a pod's endpoint, as the agent that runs knows it."""
    with Client(lab.place.node(1).socket("agent")) as client:
        rows: list[dict[str, object]] = client.get("/tables/endpoints")["rows"]
        return next(row for row in rows if row["pod"] == pod)


def test_an_agent_is_upgraded_and_downgraded_without_a_packet_noticing(
    lab: Lab, steady: Callable[..., Steady], tmp_path: Path
) -> None:
    before = settled(lab)
    own = msgspec.json.decode(lab.place.processes.read_bytes(), type=list[ProcessSpec])[0].argv[0]
    program = str(next_version(tmp_path / "next"))
    with steady() as traffic:
        lab.run("of-this", "sleep", "inf", namespace=NAMESPACE, labels=["app=friend"])
        try:
            assert replace_agent(lab, program).startswith("99.")
            assert endpoint(lab, "of-this")["zone"] == "of the next", "a row of this version is read with a default"
            lab.run("of-next", "sleep", "inf", namespace=NAMESPACE, labels=["app=friend"])
        finally:
            version = replace_agent(lab, own)
        assert not version.startswith("99.")
        assert "zone" not in endpoint(lab, "of-next"), "a field that this version does not know is passed over"
        server = lab.pod("server", NAMESPACE)
        assert all(lab.pod(name, NAMESPACE).connects(server.ipv6, 7300) for name in ("of-this", "of-next"))
        lab.remove("of-this", "of-next", namespace=NAMESPACE)
        figures = traffic.stop()
    print(figures)
    figures.check()
    assert log_of(lab).count("programs=loaded") >= 3, "the programs were replaced each time"
    await_equal(lab, before)
