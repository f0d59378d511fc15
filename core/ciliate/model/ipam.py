"""IPAM's contract: who gives a pod its addresses. The plugin ipam provides it under `Ipam`.

Tables, written by ipam: `addresses` (who has which; released ones too, until they may be reused), `node_ranges`.
"""

from __future__ import annotations

from typing import Protocol

from ciliate.model.base import Row
from ciliate.tables.spec import Durability, TableSpec


class Address(Row, frozen=True):
    """An address that is, or was lately, given out. Key: address."""

    address: str
    family: int  # 4, 6
    owner: str  # <namespace>/<pod>, or `router`
    attachment: str = ""  # <container id>/<interface>: whose CNI ADD it was
    released: float = 0.0  # seconds since the epoch; 0: in use


class NodeRange(Row, frozen=True):
    """A pod range of this node and the router's address in it. Key: cidr."""

    cidr: str
    family: int
    router: str
    pool: str


ADDRESSES = TableSpec(
    "addresses", Address, key=("address",), durability=Durability.COMMIT, doc="Addresses and their owners."
)
NODE_RANGES = TableSpec(
    "node_ranges", NodeRange, key=("cidr",), durability=Durability.COMMIT, doc="This node's pod ranges."
)


class Allocation(Row, frozen=True):
    """What one attachment gets: an address of each family that the node has."""

    ipv4: str | None
    ipv6: str | None


class IpamError(Exception):
    """No address can be given; the message says which pool, how many are used, and by whom."""


class ExhaustedError(IpamError):
    """A pool has no free address."""


class NotReadyError(IpamError):
    """This node has no range yet; worth another try."""


class Ipam(Protocol):
    """What cni requires. All in memory but for one durable commit: well under a millisecond."""

    def allocate(self, owner: str, attachment: str) -> Allocation:
        """Addresses for an attachment; the same again if it has some already. Raises IpamError."""

    def release(self, attachment: str) -> None:
        """Take an attachment's addresses back; unknown attachments are fine."""

    def attachments(self) -> dict[str, Allocation]:
        """Every attachment and what it has."""

    def ranges(self) -> list[NodeRange]:
        """This node's ranges; empty until it has some."""
