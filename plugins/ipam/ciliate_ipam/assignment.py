"""Which node gets which range: a pure function of the pools, the ledger and the nodes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ciliate.model.base import IPNetwork

Pools = Mapping[int, tuple[list[IPNetwork], int]]
"""Family to (pools, mask size of a node's range)."""


@dataclass
class NodeWish:
    """What a node has, and whether it is to be served now."""

    cidrs: list[str]  # spec.ipam.podCIDRs
    addresses: list[str] = field(default_factory=list)  # its own, which no range may contain
    serve: bool = True


@dataclass
class Assignment:
    """The ledger (range to node) afterwards; ranges and errors of the nodes that were served."""

    ledger: dict[str, str]
    cidrs: dict[str, list[str]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def assign(
    pools: Pools, ledger: Mapping[str, str], nodes: Mapping[str, NodeWish], avoid: Iterable[IPNetwork] = ()
) -> Assignment:
    """Give each node that is to be served a range of each family; what it has already, it keeps.

    Ranges of nodes that are gone are free. avoid: networks that no new range may overlap with.
    """
    result = Assignment({cidr: node for cidr, node in ledger.items() if node in nodes})
    taken = [ipaddress.ip_network(cidr) for cidr in result.ledger]
    problems: dict[str, list[str]] = {}
    for name, wish in sorted(nodes.items()):
        for cidr in wish.cidrs:
            if problem := _claim(name, cidr, result.ledger, taken):
                problems.setdefault(name, []).append(problem)
    blocked = [*avoid, *(a for wish in nodes.values() for a in map(_network, wish.addresses) if a is not None)]
    for name, wish in sorted(nodes.items()):
        if not wish.serve:
            continue
        mine = [cidr for cidr, owner in result.ledger.items() if owner == name]
        if name in problems:
            result.errors[name] = "; ".join(problems[name])
            if set(pools) <= {ipaddress.ip_network(cidr).version for cidr in mine}:
                result.cidrs[name] = mine  # somebody has edited its object: it has what the ledger says
            continue  # else what a node uses already is not changed under it
        cidrs = [cidr for cidr in wish.cidrs if cidr in mine] + [cidr for cidr in mine if cidr not in wish.cidrs]
        for family, (cidr_pools, size) in pools.items():
            if any(ipaddress.ip_network(cidr).version == family for cidr in cidrs):
                continue
            free = _free(cidr_pools, size, [*taken, *blocked])
            if free is None:
                problems.setdefault(name, []).append(_exhausted(family, cidr_pools, size, result.ledger))
                continue
            taken.append(free)
            result.ledger[str(free)] = name
            cidrs.append(str(free))
        result.cidrs[name] = cidrs
        result.errors[name] = "; ".join(problems.get(name, ()))
    return result


def _claim(name: str, cidr: str, ledger: dict[str, str], taken: list[IPNetwork]) -> str:
    """Enter a range that a node says it has; the reason if it can't have it."""
    try:
        network = ipaddress.ip_network(cidr)
    except ValueError as error:
        return f"spec.ipam.podCIDRs: {error}"
    if ledger.get(cidr) == name:
        return ""
    for other in taken:
        if other.version == network.version and other.overlaps(network):
            return f"spec.ipam.podCIDRs: {cidr} overlaps with {other}, which node {ledger[str(other)]} has"
    ledger[cidr] = name
    taken.append(network)
    return ""


def _network(address: str) -> IPNetwork | None:
    try:
        return ipaddress.ip_network(address)
    except ValueError:
        return None


def _free(pools: Iterable[IPNetwork], size: int, taken: Iterable[IPNetwork]) -> IPNetwork | None:
    """The first subnet of a size that overlaps with nothing taken."""
    known = sorted((int(n.network_address), int(n.broadcast_address), n.version) for n in taken)
    for pool in pools:
        step = 1 << (pool.max_prefixlen - size)
        start, end = int(pool.network_address), int(pool.broadcast_address)
        for first, last, version in known:
            if version == pool.version and first < start + step and last >= start:
                start = last // step * step + step
        if start + step - 1 <= end:
            return type(pool)((start, size))
    return None


def _exhausted(family: int, pools: Iterable[IPNetwork], size: int, ledger: Mapping[str, str]) -> str:
    used = sum(ipaddress.ip_network(cidr).version == family for cidr in ledger)
    return (
        f"no IPv{family} range of /{size} is free in the pools {', '.join(map(str, pools))}: {used} are in use;"
        f" add a pool to ipam.cluster_pool_ipv{family}_cidr"
    )
