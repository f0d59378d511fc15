"""The time of a message, read from its bytes, is what the generated code reads."""

from __future__ import annotations

import pytest
from ciliate_hubble.api.flow_pb2 import Flow, LostEvent
from ciliate_hubble.api.observer_pb2 import GetFlowsResponse
from ciliate_hubble.api.relay_pb2 import NODE_CONNECTED, NodeStatusEvent
from ciliate_hubble.relay.wire import WireError, is_flow, message_time
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

TIMES = st.builds(Timestamp, seconds=st.integers(-(1 << 62), 1 << 62), nanos=st.integers(0, 999_999_999))


@given(TIMES, st.text(), st.sampled_from(["flow", "lost_events", "node_status", "none"]))
def test_time_and_kind_are_those_of_the_generated_code(time: Timestamp, name: str, kind: str) -> None:
    message = GetFlowsResponse(node_name=name, time=time)
    if kind == "flow":
        message.flow.CopyFrom(Flow(uuid=name, time=time, node_name=name))
    elif kind == "lost_events":
        message.lost_events.CopyFrom(LostEvent(num_events_lost=7))
    elif kind == "node_status":
        message.node_status.CopyFrom(NodeStatusEvent(state_change=NODE_CONNECTED, node_names=[name]))
    encoded = message.SerializeToString()
    assert message_time(encoded) == time.seconds * 1_000_000_000 + time.nanos
    assert is_flow(encoded) == (kind == "flow")


def test_fields_may_come_in_any_order_and_the_last_one_counts() -> None:
    first = GetFlowsResponse(time=Timestamp(seconds=1)).SerializeToString()
    second = GetFlowsResponse(time=Timestamp(seconds=2, nanos=3)).SerializeToString()
    flow = GetFlowsResponse(flow=Flow(uuid="x" * 300)).SerializeToString()
    assert message_time(first + second + flow) == 2_000_000_003
    assert message_time(flow) == 0
    assert message_time(b"") == 0


@given(st.binary(max_size=64))
def test_any_bytes_give_a_time_or_are_refused(message: bytes) -> None:
    try:
        message_time(message)
        is_flow(message)
    except WireError:
        pass


@pytest.mark.parametrize("message", [b"\xff", b"\x0a\x05abc", b"\x0b", b"\xca\x3e\xff\xff\xff\xff\x0f"])
def test_broken_bytes_are_refused(message: bytes) -> None:
    with pytest.raises(WireError):
        message_time(message)
