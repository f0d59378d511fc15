"""The frame between the C shim and the agent: the twin of the comment at the head of shim/ciliate-cni.c.

Both ways: MAGIC, the body's length (4 bytes, big endian), the body. A request's body is eight fields, each with a
length of 4 bytes; the opened CNI_NETNS travels beside its first byte. An answer's body is an exit status byte and what
is printed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC = b"CNI\x01"
HEADER = struct.Struct(">4sI")
CONFIG_MAX = 1 << 20
FIELD_MAX = 64 << 10
BODY_MAX = 6 * (4 + FIELD_MAX) + (4 + 16) + (4 + CONFIG_MAX)
_LENGTH = struct.Struct(">I")
_FIELDS = 8


class WireError(ValueError):
    """Bytes that are no request; the text says where they go wrong."""


@dataclass(frozen=True)
class Request:
    """One call of the CNI binary, as bytes: nothing is checked yet."""

    command: bytes
    container_id: bytes
    netns: bytes
    interface: bytes
    args: bytes
    path: bytes
    netns_errno: int  # of opening `netns`; 0: opened, or none was given
    config: bytes

    @property
    def attachment(self) -> tuple[bytes, bytes]:
        """What is being attached: container and interface."""
        return self.container_id, self.interface


def encode_request(request: Request) -> bytes:
    """A whole frame."""
    fields = (
        request.command,
        request.container_id,
        request.netns,
        request.interface,
        request.args,
        request.path,
        str(request.netns_errno).encode(),
        request.config,
    )
    body = b"".join(_LENGTH.pack(len(field)) + field for field in fields)
    return HEADER.pack(MAGIC, len(body)) + body


def body_length(header: bytes) -> int:
    """The length of the body after a request's header. Raises WireError."""
    if len(header) != HEADER.size:
        raise WireError(f"the frame ends after {len(header)} bytes, in its header")
    magic, length = HEADER.unpack(header)
    if magic != MAGIC:
        raise WireError(f"the frame begins with {magic!r}, not {MAGIC!r}: is this shim of another version?")
    if length > BODY_MAX:
        raise WireError(f"the frame has {length} bytes; at most {BODY_MAX} are allowed")
    return int(length)


def decode_body(body: bytes) -> Request:
    """The request in a frame's body. Raises WireError."""
    fields: list[bytes] = []
    at = 0
    for number in range(_FIELDS):
        if at + 4 > len(body):
            raise WireError(f"the frame ends within field {number + 1} of {_FIELDS}")
        (length,) = _LENGTH.unpack_from(body, at)
        at += 4 + length
        if at > len(body):
            raise WireError(f"field {number + 1} of {_FIELDS} claims {length} bytes, more than the frame has")
        fields.append(body[at - length : at])
    if at != len(body):
        raise WireError(f"the frame has {len(body) - at} bytes too many")
    command, container_id, netns, interface, args, path, error, config = fields
    if not error.isdigit() or len(error) > 4:
        raise WireError(f"field 7 must be an errno, not {error[:16]!r}")
    return Request(command, container_id, netns, interface, args, path, int(error), config)


def decode_request(frame: bytes) -> Request:
    """The request in a whole frame, as the delete queue keeps it. Raises WireError."""
    length = body_length(frame[: HEADER.size])
    if len(frame) != HEADER.size + length:
        raise WireError(f"the frame has {len(frame)} bytes instead of {HEADER.size + length}")
    return decode_body(frame[HEADER.size :])


def encode_answer(status: int, text: bytes) -> bytes:
    """A whole answer: the shim's exit status and what it prints."""
    return HEADER.pack(MAGIC, 1 + len(text)) + bytes([status]) + text


def queue_name(container_id: bytes, interface: bytes) -> str:
    """The name of an attachment's file in the delete queue: FNV-1a of both, as the shim computes it."""
    value = 0xCBF29CE484222325
    for byte in container_id + b"\0" + interface + b"\0":
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}.del"
