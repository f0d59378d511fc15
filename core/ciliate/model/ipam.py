"""IPAM's contract: who gives a pod its addresses. The plugin ipam provides it under `Ipam`.

Tables, written by ipam: `addresses` (who has which; released ones too, until they may be reused), `node_ranges`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from ciliate.model.base import Row
from ciliate.tables.spec import Durability, TableSpec


class Address(Row, frozen=True):
    """An address that is, or was lately, given out. Key: address."""

    address: str
    family: int  # 4, 6
    owner: str  # <namespace>/<pod>, or `router`
    attachment: str = ""  # <container id>/<interface>: whose CNI ADD it was
    released: float = 0.0  # seconds since the machine's start (CLOCK_BOOTTIME); 0: in use


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

    def claim(self, owner: str, attachment: str, allocation: Allocation) -> None:
        """Note that an attachment has these addresses, whoever had them: of endpoints that outlived the table.

        Raises IpamError if that can't be written down.
        """

    def attachments(self) -> dict[str, Allocation]:
        """Every attachment and what it has."""

    def ranges(self) -> list[NodeRange]:
        """This node's ranges; empty until it has some."""


class PodRange(Row, frozen=True):
    """A range that a driver gives to this node; which address of it is the router's is not the driver's matter."""

    cidr: str
    pool: str  # what exhaustion is said of


class IpamDriver(Protocol):
    """A mode of IPAM (group `ciliate.ipam`): where pod ranges come from. Made as `driver(context)` with ipam's context.

    Giving out single addresses, and keeping them, is the same in all modes and not the driver's part.
    """

    operator_assigns: bool
    """Whether `operate` writes the ranges into the CiliumNode (spec.ipam.podCIDRs); if not, ipam's agent part does."""

    def ranges(self) -> AsyncIterator[list[PodRange]]:
        """Agent: this node's ranges as soon as they are known, and all of them again after each change, without end.

        Raises NotReadyError, saying why there are none; it is called again later.
        """

    async def operate(self) -> None:
        """Operator: hand out ranges to all nodes, for ever. Returns at once where there is nothing to hand out."""

    def status(self) -> dict[str, str]:
        """What a user wants to know of the mode, by name: its pools, what it waits for."""
