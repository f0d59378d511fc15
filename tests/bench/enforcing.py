"""A policy is changed again and again, each time until a node enforces it.

`python -m tests.bench.enforcing KUBECONFIG SOCKET COUNT`; SOCKET: of the node's agent.

Prints the milliseconds that each took, as JSON: from the request to the API server, as kubectl makes it, on.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from ciliate.api.client import Client
from ciliate.model.kinds import CILIUM_NETWORK_POLICY
from ciliate_kubernetes.store.driver import KubernetesStore

from tests.kubernetes.population import Population


async def main(kubeconfig: str, socket: Path, count: int) -> None:
    """Change a policy that selects pods of the node."""
    store = KubernetesStore({"kubeconfig": kubeconfig}, ())
    policy = Population().policy(0)
    meta = {key: policy["metadata"][key] for key in ("name", "namespace")}
    took: list[float] = []
    with Client(socket) as client:
        revisions = _revisions(client, meta["name"])
        for number in range(count):
            ports = [{"ports": [{"port": str(20000 + number), "protocol": "TCP"}]}]
            ingress = [{**policy["spec"]["ingress"][0], "toPorts": ports}]
            began = time.monotonic()
            stored = await store.patch(CILIUM_NETWORK_POLICY, {"metadata": meta, "spec": {"ingress": ingress}})
            while next(revisions) < stored["metadata"]["generation"]:
                continue
            took.append(1000 * (time.monotonic() - began))
    await store.close()
    print(json.dumps(took))


def _revisions(client: Client, name: str) -> Iterator[int]:
    """The generations of a policy that the node has realised, as it does."""
    for message in client.stream("/follow", {"tables": "policy_revisions"}):
        for table in message.get("tables") or ():
            for row in map(msgspec.msgpack.decode, table["rows"]):
                if row["name"] == name:
                    yield int(row["generation"])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
