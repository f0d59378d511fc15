"""Where the cluster's API server is: what policies that name `kube-apiserver` mean.

Table: `api_servers`, written by kubernetes, read by policy. One on another node has the identity kube-apiserver (the
ipcache says so); one on this node makes the host be it too; one outside of the cluster is outside, and it as well.
"""

from __future__ import annotations

from ciliate.model.base import Row
from ciliate.tables.spec import Durability, TableSpec


class ApiServer(Row, frozen=True):
    """An address of the API server. Key: address."""

    address: str
    place: str  # host: this node; node: another one; outside


API_SERVERS = TableSpec(
    "api_servers", ApiServer, key=("address",), durability=Durability.SECOND, doc="Addresses of the API server."
)
