"""What every contract is built of: rows and addresses."""

from __future__ import annotations

import ipaddress

import msgspec
import numpy as np

ADDRESS = np.dtype((np.uint8, 16))
"""An address in a BPF map: 16 bytes, network order; IPv4 as ::ffff:a.b.c.d."""

_V4_MAPPED = b"\x00" * 10 + b"\xff\xff"

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class Row(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of every table row: immutable, and its fields have defaults once a version has been released.

    gc=False: nothing in a row leads back to it, so the search for cyclic garbage needs not look at it.
    """


def pack_address(address: str | IPAddress) -> bytes:
    """The 16 bytes of an address as BPF maps hold it."""
    parsed = ipaddress.ip_address(address)
    return _V4_MAPPED + parsed.packed if parsed.version == 4 else parsed.packed


def unpack_address(packed: bytes) -> IPAddress:
    """The address that `pack_address` packed."""
    if packed[:12] == _V4_MAPPED:
        return ipaddress.IPv4Address(packed[12:16])
    return ipaddress.IPv6Address(packed)


def pack_prefix(network: str | IPNetwork) -> tuple[int, bytes]:
    """(prefix length in bits of the 128-bit form, 16 address bytes) of a network."""
    parsed = ipaddress.ip_network(network)
    return parsed.prefixlen + (96 if parsed.version == 4 else 0), pack_address(parsed.network_address)
