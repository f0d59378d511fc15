"""Prefixes to identities, by longest match: the ipcache, for the few ends of which no record says the identity."""

from __future__ import annotations

from ciliate.model.base import pack_prefix


class Prefixes:
    """The longest of the prefixes that hold an address decides."""

    def __init__(self) -> None:
        self._by_length: dict[int, dict[int, int]] = {}
        self._lengths: list[int] = []  # longest first

    def __len__(self) -> int:
        return sum(map(len, self._by_length.values()))

    def put(self, prefix: str, identity: int) -> None:
        """Set a prefix's identity."""
        length, network = _parsed(prefix)
        if length not in self._by_length:
            self._by_length[length] = {}
            self._lengths = sorted(self._by_length, reverse=True)
        self._by_length[length][network] = identity

    def delete(self, prefix: str) -> None:
        """Forget a prefix; an unknown one changes nothing."""
        length, network = _parsed(prefix)
        self._by_length.get(length, {}).pop(network, None)

    def identity(self, address: bytes) -> int:
        """Of a packed address; 0 if nothing holds it."""
        number = int.from_bytes(address)
        for length in self._lengths:
            found = self._by_length[length].get(number >> (128 - length) if length else 0)
            if found is not None:
                return found
        return 0


def _parsed(prefix: str) -> tuple[int, int]:
    length, packed = pack_prefix(prefix)
    return length, int.from_bytes(packed) >> (128 - length) if length else 0
