"""Packed messages for the one clsact filter of each pod's host end."""

from __future__ import annotations

import struct

from ciliate_cni import netlink as nl
from ciliate_cni.netlink import Message, attribute, attributes, number, text

_TC = struct.Struct("=BxxxiIII")  # family, index, handle, parent, info
_NEWQDISC, _NEWTFILTER, _GETTFILTER = 36, 44, 46
_CLSACT, _INGRESS = 0xFFFFFFF1, 0xFFFFFFF2
_INFO = (1 << 16) | 0x0300  # priority 1, ETH_P_ALL in network order
_KIND, _OPTIONS = 1, 2
_FD, _NAME, _FLAGS, _ID = 6, 7, 8, 11
_DIRECT_ACTION = 1


def add_clsact(index: int) -> Message:
    """The qdisc that holds filters; one that is there is fine if `attach_filter` succeeds after it."""
    body = _TC.pack(0, index, 0xFFFF0000, _CLSACT, 0) + text(_KIND, "clsact")
    return Message(f"adding clsact to interface {index}", _NEWQDISC, nl.CREATE | nl.EXCLUSIVE, body)


def attach_filter(index: int, program: int, name: str) -> Message:
    """Run a program at an interface's ingress; one that is there is replaced atomically."""
    options = number(_FD, program) + text(_NAME, name) + number(_FLAGS, _DIRECT_ACTION)
    body = _TC.pack(0, index, 1, _INGRESS, _INFO) + text(_KIND, "bpf") + attribute(_OPTIONS, options)
    return Message(f"attaching {name} to interface {index}", _NEWTFILTER, nl.CREATE | nl.REPLACE, body)


def attached_program(socket_: nl.NetlinkSocket, index: int) -> int | None:
    """The id of the program at an interface's ingress, or None."""
    body = _TC.pack(0, index, 1, _INGRESS, _INFO) + text(_KIND, "bpf")
    try:
        answers = socket_.ask(Message(f"looking up the filter of interface {index}", _GETTFILTER, 0, body))
    except nl.NetlinkError:
        return None
    for answer in answers:
        options = dict(attributes(answer, _TC.size)).get(_OPTIONS, b"")
        found = dict(attributes(options)).get(_ID)
        if found is not None:
            return int(struct.unpack("=I", found)[0])
    return None
