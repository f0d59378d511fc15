"""Every field of FlowFilter, by name, with what it means."""

from __future__ import annotations

from ciliate_hubble.filters import of_ends, of_origins, of_packets, of_requests
from ciliate_hubble.filters.field import Meaning

MEANINGS: dict[str, Meaning] = {
    **of_packets.MEANINGS,
    **of_origins.MEANINGS,
    **of_ends.MEANINGS,
    **of_requests.MEANINGS,
}
HTTP_FIELDS = frozenset(name for name in MEANINGS if name.startswith("http_"))


def cost(name: str) -> int:
    """What a field's predicate costs, to be tried in this order: numbers, ends, addresses, records."""
    if name in of_requests.MEANINGS or name in ("trace_id", "protocol"):
        return 3
    if name in ("source_ip", "destination_ip", "source_ip_xlated"):
        return 2
    return 1 if name in of_ends.MEANINGS else 0
