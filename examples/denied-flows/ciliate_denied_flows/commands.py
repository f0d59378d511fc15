"""The command `ciliate-dbg denied-flows`."""

import json

from ciliate.cli.cluster import NameOption, NodeOption, find_cluster


def denied_flows(name: NameOption = "lab", node: NodeOption = "", count: int = 10) -> None:
    """Print the last denied flows, each a line of JSON."""
    with find_cluster(name).client(node) as client:
        for line in client.get("/denied-flows", {"count": str(count)}):
            print(json.dumps(line))
