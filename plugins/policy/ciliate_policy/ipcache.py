"""The ipcache: everybody's claims merged, in the order that `ciliate.model.ipcache` states. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from ciliate.model.base import pack_address, pack_prefix, unpack_address
from ciliate.model.identity import Reserved
from ciliate.model.ipcache import (
    CLAIMANTS,
    IPCACHE_ENTRY,
    IPCACHE_HOST,
    IPCACHE_KEY,
    IPCACHE_UNRESOLVED,
    IpcacheClaim,
    IpcacheEntry,
)

from ciliate_policy.entries import Array

ENDPOINTS = "endpoints"
POLICY = "policy"
HOST_BITS = 128
_V4_BITS, _V4_MAPPED = 96, 0xFFFF


class Address(NamedTuple):
    """A prefix as the map holds it."""

    bits: int
    packed: bytes


def address_of(prefix: str) -> Address:
    """The map's form of a prefix's text."""
    return Address(*pack_prefix(prefix))


def text_of(address: Address) -> str:
    """The canonical text of a prefix: what keys the table `ipcache`."""
    host = unpack_address(address.packed)
    return f"{host}/{address.bits - (96 if host.version == 4 else 0)}"


class Ipcache:
    """Claims by claimant, and what they come to.

    `put` and `remove` note which prefixes they touch; `merge` says what has changed there: first what this plugin and
    the local endpoints claim, which policies in the kernel rely on, then as many of the others as are wanted.
    """

    def __init__(self) -> None:
        self.entries: dict[Address, IpcacheEntry] = {}
        self._claims: dict[str, dict[Address, IpcacheClaim]] = {name: {} for name in (ENDPOINTS, *CLAIMANTS)}
        self._urgent: set[Address] = set()
        self._touched: dict[Address, None] = {}  # in the order in which they were touched
        self._unresolved: set[Address] = set()
        self._unresolved_bits: Counter[int] = Counter()

    @property
    def pending(self) -> bool:
        """Whether `merge` has more to say."""
        return bool(self._urgent or self._touched)

    def prefixes(self, claimant: str) -> list[str]:
        """What a claimant claims."""
        return [claim.prefix for claim in self._claims.get(claimant, {}).values()]

    def forget(self) -> None:
        """Have `merge` say all anew."""
        self.entries.clear()
        for claimant, claims in self._claims.items():
            for address in claims:
                self._touch(claimant, address)

    def _touch(self, claimant: str, address: Address) -> None:
        if claimant in (ENDPOINTS, POLICY):
            self._urgent.add(address)
        else:
            self._touched[address] = None

    def put(self, claimant: str, claim: IpcacheClaim) -> None:
        """A claimant's word on a prefix. Raises ValueError if the prefix is none."""
        address = address_of(claim.prefix)
        if claimant not in self._claims:
            self._claims[claimant] = {}
        self._claims[claimant][address] = claim
        self._touch(claimant, address)
        if claim.unresolved and address not in self._unresolved:
            self._unresolved.add(address)
            self._unresolved_bits[address.bits] += 1
            self._touched.update(dict.fromkeys(self._claims[POLICY]))

    def remove(self, claimant: str, prefix: str) -> None:
        """A claimant takes its word back."""
        address = address_of(prefix)
        old = self._claims.get(claimant, {}).pop(address, None)
        if old is None:
            return
        self._touch(claimant, address)
        if old.unresolved and not any(
            claims[address].unresolved for claims in self._claims.values() if address in claims
        ):
            self._unresolved.remove(address)
            self._unresolved_bits[address.bits] -= 1
            self._touched.update(dict.fromkeys(self._claims[POLICY]))

    def merge(self, most: int | None = None) -> dict[Address, IpcacheEntry | None]:
        """What is different now: entries by prefix, None for one that is gone. most: of the others; None: all."""
        touched = [*self._urgent, *itertools.islice(self._touched, most)]
        self._urgent = set()
        changed: dict[Address, IpcacheEntry | None] = {}
        for address in touched:
            self._touched.pop(address, None)
            entry = self._decide(address)
            if entry != self.entries.get(address):
                changed[address] = entry
                if entry is None:
                    del self.entries[address]
                else:
                    self.entries[address] = entry
        return changed

    def _decide(self, address: Address) -> IpcacheEntry | None:
        for claimant in (ENDPOINTS, *CLAIMANTS, *sorted(set(self._claims) - {ENDPOINTS, *CLAIMANTS})):
            claim = self._claims[claimant].get(address)
            if claim is not None and not (claimant == POLICY and self._in_pod_range(address)):
                return IpcacheEntry(
                    prefix=text_of(address), identity=claim.identity, node=claim.node, unresolved=claim.unresolved,
                    claimant=claimant,
                )  # fmt: skip
        return None

    def _in_pod_range(self, address: Address) -> bool:
        """A CIDR rule must not turn an address of a pod range, whose pod is unknown, into one of the outside."""
        number = int.from_bytes(address.packed)
        least = _V4_BITS if number >> 32 == _V4_MAPPED else 0  # of a prefix of its family
        if address.bits == least:
            return False
        for bits, count in self._unresolved_bits.items():
            if count and least <= bits <= address.bits:
                shift = HOST_BITS - bits
                if Address(bits, (number >> shift << shift).to_bytes(16)) in self._unresolved:
                    return True
        return False


def encode(entries: Mapping[Address, IpcacheEntry]) -> tuple[Array, Array]:
    """Keys and values of the map `ipcache`."""
    keys, values = encode_keys(entries), np.zeros(len(entries), IPCACHE_ENTRY)
    for number, entry in enumerate(entries.values()):
        flags = (IPCACHE_UNRESOLVED if entry.unresolved else 0) | (
            IPCACHE_HOST if entry.identity == Reserved.HOST else 0
        )
        values[number]["identity"], values[number]["flags"] = entry.identity, flags
        if entry.node:
            values[number]["tunnel"] = np.frombuffer(pack_address(entry.node), np.uint8)
    return keys, values


def encode_keys(addresses: Iterable[Address]) -> Array:
    """Keys of the map `ipcache`."""
    raw = b"".join(bits.to_bytes(4, "little") + packed for bits, packed in addresses)
    return np.frombuffer(raw, IPCACHE_KEY).copy()


def lookup(entries: Mapping[Address, IpcacheEntry], address: str) -> IpcacheEntry | None:
    """The entry of the longest prefix that holds an address."""
    packed = pack_address(address)
    number = int.from_bytes(packed)
    for bits in range(HOST_BITS, -1, -1):
        masked = (number >> (HOST_BITS - bits) << (HOST_BITS - bits)).to_bytes(16)
        entry = entries.get(Address(bits, masked))
        if entry is not None:
            return entry
    return None
