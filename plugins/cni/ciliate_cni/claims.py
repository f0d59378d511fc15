"""What this plugin knows of addresses: the host's own are the host's, a pod range's unknown ones are nobody's yet."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from ciliate.model.identity import Reserved
from ciliate.model.ipam import NodeRange
from ciliate.model.ipcache import IpcacheClaim


def claims(addresses: Iterable[str], ranges: Iterable[NodeRange]) -> list[IpcacheClaim]:
    """The whole of the claims table."""
    found = {r.cidr: IpcacheClaim(prefix=r.cidr, identity=Reserved.UNKNOWN, unresolved=True) for r in ranges}
    for address in addresses:
        prefix = f"{address}/{ip_address(address).max_prefixlen}"
        found[prefix] = IpcacheClaim(prefix=prefix, identity=Reserved.HOST)
    return list(found.values())


def write(writer: Any, wanted: Iterable[IpcacheClaim]) -> None:
    """Make the table hold these claims and no others."""
    by_prefix = {claim.prefix: claim for claim in wanted}
    for prefix in [prefix for prefix in writer.rows if prefix not in by_prefix]:
        writer.delete(prefix)
    writer.put_all(by_prefix.values())
    writer.complete()
