"""The parts of `union bpf_attr` (linux/bpf.h), one structure for each group of commands.

Pointers are 64-bit numbers, as the kernel has them. A structure may end before the kernel's does: its size goes along.
"""

from __future__ import annotations

import ctypes
import enum

_U32 = ctypes.c_uint32
_U64 = ctypes.c_uint64


class Command(enum.IntEnum):
    """Commands of bpf(2) in use (enum bpf_cmd)."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    MAP_LOOKUP_BATCH = 24
    MAP_LOOKUP_AND_DELETE_BATCH = 25
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_DETACH = 34


class MapCreate(ctypes.Structure):
    """MAP_CREATE."""

    _fields_ = [
        ("map_type", _U32),
        ("key_size", _U32),
        ("value_size", _U32),
        ("max_entries", _U32),
        ("map_flags", _U32),
        ("inner_map_fd", _U32),
        ("numa_node", _U32),
        ("map_name", ctypes.c_char * 16),
    ]


class Element(ctypes.Structure):
    """MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, MAP_DELETE_ELEM, MAP_GET_NEXT_KEY (value: the next key)."""

    _fields_ = [("map_fd", _U32), ("pad", _U32), ("key", _U64), ("value", _U64), ("flags", _U64)]


class Batch(ctypes.Structure):
    """MAP_*_BATCH."""

    _fields_ = [
        ("in_batch", _U64),
        ("out_batch", _U64),
        ("keys", _U64),
        ("values", _U64),
        ("count", _U32),
        ("map_fd", _U32),
        ("elem_flags", _U64),
        ("flags", _U64),
    ]


class ProgramLoad(ctypes.Structure):
    """PROG_LOAD."""

    _fields_ = [
        ("prog_type", _U32),
        ("insn_cnt", _U32),
        ("insns", _U64),
        ("license", _U64),
        ("log_level", _U32),
        ("log_size", _U32),
        ("log_buf", _U64),
        ("kern_version", _U32),
        ("prog_flags", _U32),
        ("prog_name", ctypes.c_char * 16),
        ("prog_ifindex", _U32),
        ("expected_attach_type", _U32),
    ]


class Object(ctypes.Structure):
    """OBJ_PIN, OBJ_GET."""

    _fields_ = [("pathname", _U64), ("bpf_fd", _U32), ("file_flags", _U32)]


class TestRunAttr(ctypes.Structure):
    """PROG_TEST_RUN."""

    __test__ = False
    _fields_ = [
        ("prog_fd", _U32),
        ("retval", _U32),
        ("data_size_in", _U32),
        ("data_size_out", _U32),
        ("data_in", _U64),
        ("data_out", _U64),
        ("repeat", _U32),
        ("duration", _U32),
        ("ctx_size_in", _U32),
        ("ctx_size_out", _U32),
        ("ctx_in", _U64),
        ("ctx_out", _U64),
        ("flags", _U32),
        ("cpu", _U32),
        ("batch_size", _U32),
        ("pad", _U32),
    ]


class Info(ctypes.Structure):
    """OBJ_GET_INFO_BY_FD."""

    _fields_ = [("bpf_fd", _U32), ("info_len", _U32), ("info", _U64)]


class LinkCreate(ctypes.Structure):
    """LINK_CREATE, with the tcx part."""

    _fields_ = [
        ("prog_fd", _U32),
        ("target", _U32),
        ("attach_type", _U32),
        ("flags", _U32),
        ("relative_fd", _U32),
        ("pad", _U32),
        ("expected_revision", _U64),
    ]


class LinkUpdate(ctypes.Structure):
    """LINK_UPDATE; LINK_DETACH uses the first field."""

    _fields_ = [("link_fd", _U32), ("new_prog_fd", _U32), ("flags", _U32), ("old_prog_fd", _U32)]


class Query(ctypes.Structure):
    """PROG_QUERY."""

    _fields_ = [
        ("target", _U32),
        ("attach_type", _U32),
        ("query_flags", _U32),
        ("attach_flags", _U32),
        ("prog_ids", _U64),
        ("prog_cnt", _U32),
        ("pad", _U32),
        ("prog_attach_flags", _U64),
        ("link_ids", _U64),
        ("link_attach_flags", _U64),
        ("revision", _U64),
    ]


class MapInfoStruct(ctypes.Structure):
    """struct bpf_map_info, as far as it is read."""

    _fields_ = [
        ("type", _U32),
        ("id", _U32),
        ("key_size", _U32),
        ("value_size", _U32),
        ("max_entries", _U32),
        ("map_flags", _U32),
        ("name", ctypes.c_char * 16),
    ]


class ProgramInfoStruct(ctypes.Structure):
    """struct bpf_prog_info, as far as it is read."""

    _fields_ = [
        ("type", _U32),
        ("id", _U32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", _U32),
        ("xlated_prog_len", _U32),
        ("jited_prog_insns", _U64),
        ("xlated_prog_insns", _U64),
        ("load_time", _U64),
        ("created_by_uid", _U32),
        ("nr_map_ids", _U32),
        ("map_ids", _U64),
        ("name", ctypes.c_char * 16),
    ]


class LinkInfoStruct(ctypes.Structure):
    """struct bpf_link_info with the tcx part (XDP has its ifindex in the same place)."""

    _fields_ = [
        ("type", _U32),
        ("id", _U32),
        ("prog_id", _U32),
        ("pad", _U32),
        ("ifindex", _U32),
        ("attach_type", _U32),
        ("more", ctypes.c_uint8 * 40),
    ]
