"""The command `ciliate-dbg rate-limits`."""

from ciliate.cli.cluster import NameOption, NodeOption, find_cluster
from ciliate.cli.node import OutputOption, print_rows


def rate_limits(name: NameOption = "lab", node: NodeOption = "", output: OutputOption = "table") -> None:
    """List the pods that have a limit, and what it did."""
    columns = ["namespace", "pod", "packets_per_second", "passed", "dropped"]
    with find_cluster(name).client(node) as client:
        print_rows(client.get("/rate-limits"), columns, output)
