"""Traffic between two pods that nothing may disturb: packets of long flows, their echoes, and new connections."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.node.accounting import Outcome, account, between
from tests.node.cni_node import Pod
from tests.node.traffic import PORT, Traffic

RATE, FLOWS, CONNECTIONS = 400, 8, 25
_SETTLING = 0.3
_IN_FLIGHT_NS = 200_000_000


@contextmanager
def undisturbed(client: Pod, server: Pod) -> Iterator[None]:
    """What happens inside loses no packet, no echo and no connection, of either family. Prints what was sent."""
    with tempfile.TemporaryDirectory(prefix="steady-") as folder, Traffic(Path(folder)) as traffic:
        for family, address in zip((4, 6), server.addresses, strict=True):
            port = PORT + 100 * family
            traffic.serve([Path(server.netns)], family=family, port=port, echo=True)
            traffic.send(Path(client.netns), address, port=port, flows=FLOWS, rate=RATE, echoes=True)
            traffic.connect(Path(client.netns), [address], port=port, rate=CONNECTIONS)
        _flow_for(_SETTLING)
        yield
        _flow_for(_SETTLING)
        until = time.monotonic_ns() - _IN_FLIGHT_NS
        records = traffic.stop()
    sent = between(records.sent, 0, until)
    there = account(sent, between(records.received, 0, until))
    back = account(sent, between(records.echoed, 0, until))
    connections = between(records.connections, 0, until)
    failed = connections[connections["outcome"] != Outcome.ANSWERED]
    lost, unanswered = sum(flow.lost for flow in there), sum(flow.lost for flow in back)
    gap = max(flow.longest_gap_ms for flow in [*there, *back])
    said = f"{len(sent)} packets sent, {lost} lost, {unanswered} echoes lost, longest gap {gap:.1f} ms"
    said += f"; {len(connections)} connections, {len(failed)} failed {failed[:3].tolist()}"
    print(said)
    assert len(sent) > RATE * _SETTLING and len(connections) > CONNECTIONS * _SETTLING
    assert (lost, unanswered, len(failed)) == (0, 0, 0), said


def _flow_for(seconds: float) -> None:
    """Traffic needs time to be traffic: this waits for nothing else."""
    time.sleep(seconds)
