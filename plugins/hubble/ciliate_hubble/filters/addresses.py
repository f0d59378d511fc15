"""Addresses and prefixes in filters, compared with whole columns."""

from __future__ import annotations

import ipaddress
from collections import defaultdict

import numpy as np
from ciliate.model.base import pack_prefix
from numpy.typing import NDArray

from ciliate_hubble.columns import Flows
from ciliate_hubble.filters.predicates import Mask, Predicate

_FEW = 8
_WORD = 0xFFFFFFFFFFFFFFFF


class AddressError(ValueError):
    """A text that is neither an address nor a prefix."""


def addresses(column: str, texts: list[str]) -> Predicate:
    """Rows whose address is one of some, or in one of some prefixes.

    Raises AddressError; its second argument is the index of the text.
    """
    groups: defaultdict[tuple[int, int], set[int]] = defaultdict(set)  # family, length in bits of 128: networks
    for index, text in enumerate(texts):
        family, length, network = _parsed(text, index)
        groups[family, length].add(network)

    def mask(flows: Flows) -> Mask:
        halves = np.ascontiguousarray(flows[column]).view(">u8").astype(np.uint64)
        high, low = halves[:, 0], halves[:, 1]
        found = np.zeros(len(flows), np.bool_)
        for (family, length), networks in groups.items():
            found |= (flows["family"] == family) & _within(high, low, length, networks)
        return found

    return mask


def _parsed(text: str, index: int) -> tuple[int, int, int]:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise AddressError(f"{text!r} is neither an address nor a prefix, as 10.0.0.1 or fd00::/64", index) from error
    if "%" in text:
        raise AddressError(f"{text!r} has a zone; flows have none: leave it out", index)
    length, packed = pack_prefix(network)
    return network.version, length, int.from_bytes(packed) >> (128 - length) if length else 0


def _within(high: NDArray[np.uint64], low: NDArray[np.uint64], length: int, networks: set[int]) -> Mask:
    above, below = min(length, 64), max(0, length - 64)
    mask_high = np.uint64(_WORD << (64 - above) & _WORD)
    mask_low = np.uint64(_WORD << (64 - below) & _WORD)
    wanted = {divmod(network << (128 - length), 1 << 64) for network in networks}
    high, low = high & mask_high, low & mask_low
    if len(wanted) > _FEW:
        return np.fromiter(
            (pair in wanted for pair in zip(high.tolist(), low.tolist(), strict=True)), np.bool_, len(high)
        )
    found = np.zeros(len(high), np.bool_)
    for one, other in wanted:
        found |= (high == np.uint64(one)) & (low == np.uint64(other))
    return found
