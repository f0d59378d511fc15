"""The frame between shim and agent."""

from __future__ import annotations

import pytest
from ciliate_cni import wire
from ciliate_cni.wire import Request, WireError
from hypothesis import given
from hypothesis import strategies as st

_bytes = st.binary(max_size=200)
_requests = st.builds(Request, _bytes, _bytes, _bytes, _bytes, _bytes, _bytes, st.integers(0, 999), _bytes)


@given(_requests)
def test_a_request_survives_the_frame(request: Request) -> None:
    assert wire.decode_request(wire.encode_request(request)) == request


@given(_requests, st.data())
def test_a_truncated_frame_is_refused(request: Request, data: st.DataObject) -> None:
    frame = wire.encode_request(request)
    with pytest.raises(WireError):
        wire.decode_request(frame[: data.draw(st.integers(0, len(frame) - 1))])


@given(st.binary(max_size=400))
def test_any_bytes_are_a_request_or_refused(body: bytes) -> None:
    try:
        request = wire.decode_body(body)
    except WireError:
        return
    assert wire.encode_request(request)[wire.HEADER.size :] == body or str(request.netns_errno).encode() not in body


def test_a_frame_that_claims_too_much_is_refused_before_it_is_read() -> None:
    with pytest.raises(WireError, match="at most"):
        wire.body_length(wire.HEADER.pack(wire.MAGIC, wire.BODY_MAX + 1))


def test_a_frame_of_another_protocol_is_refused() -> None:
    with pytest.raises(WireError, match="another version"):
        wire.body_length(wire.HEADER.pack(b"CNI\x02", 1))
