"""`ciliate policy`, and `ciliate-dbg bpf policy` and `bpf ipcache`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from ciliate.api.routes import ApiError
from ciliate.cli.cluster import Cluster, NameOption, NodeOption, find_cluster
from ciliate.cli.dispatch import CommandError
from ciliate.cli.node import OutputOption, print_rows

from ciliate_policy.explain import overall

app = typer.Typer(no_args_is_help=True, add_completion=False, help="What the policies come to.")
policy_map = typer.Typer(no_args_is_help=True, help="Policy entries in the kernel.")
ipcache_map = typer.Typer(no_args_is_help=True, help="Identities of addresses in the kernel.")


@app.callback()
@policy_map.callback()
@ipcache_map.callback()
def _group() -> None:
    """Keeps a group of one command a group."""


@policy_map.command("list")
def policy_list(
    endpoint: Annotated[str, typer.Argument(metavar="[ENDPOINT]", help="Only the policies of this endpoint id.")] = "",
    name: NameOption = "lab",
    node: NodeOption = "",
    output: OutputOption = "table",
) -> None:
    """List policy-map entries and the rules that made them."""
    with find_cluster(name).client(node) as client:
        rows = client.get("/bpf/policy", {"endpoint": endpoint} if endpoint else {})
    columns = ["policy", "direction", "action", "identity", "labels", "protocol", "port", "rule_set", "rules"]
    print_rows(rows, columns, output)


@ipcache_map.command("list")
def ipcache_list(name: NameOption = "lab", node: NodeOption = "", output: OutputOption = "table") -> None:
    """List which identity each prefix has."""
    with find_cluster(name).client(node) as client:
        rows = client.get("/bpf/ipcache")
    print_rows(rows, ["prefix", "identity", "labels", "node", "unresolved", "claimant"], output)


@app.command("explain")
def explain_command(
    source: Annotated[str, typer.Option("--from", help="A pod (name or namespace/name), an address or reserved:NAME.")],
    destination: Annotated[str, typer.Option("--to", help="The same.")],
    port: Annotated[str, typer.Option("--port", help="As 80/tcp, 53/udp; 8/icmp is a type.")],
    name: NameOption = "lab",
    output: Annotated[str, typer.Option("-o", "--output", help="text or json.")] = "text",
) -> None:
    """The verdict on a connection, and the rules that give it."""
    if output not in ("text", "json"):
        raise CommandError(f"-o {output}: use text or json")
    answer = ask(find_cluster(name), source, destination, port)
    print(json.dumps(answer, indent=2) if output == "json" else render(answer))


def ask(cluster: Cluster, source: str, destination: str, port: str) -> dict[str, Any]:
    """Every node is asked; each knows the side of its own pods. Raises CommandError if none knows any."""
    merged: dict[str, Any] | None = None
    problem = "no node of the cluster answers"
    for node in cluster.nodes():
        try:
            with cluster.client(node) as client:
                answer = client.get("/policy/explain", {"from": source, "to": destination, "port": port})
        except ApiError as error:
            problem = str(error)
            continue
        merged = answer if merged is None else combine(merged, answer)
    if merged is None:
        raise CommandError(problem)
    return merged


def combine(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two nodes' answers as one: a side and a party as the node of its pod sees them."""
    merged = dict(first)
    for side in ("egress", "ingress"):
        merged[side] = first[side] or second[side]
    for party in ("from", "to"):
        merged[party] = second[party] if first[party]["endpoint"] is None else first[party]
    merged["verdict"] = overall([merged["egress"], merged["ingress"]])
    return merged


def render(answer: dict[str, Any]) -> str:
    """The answer as text."""
    source, destination = answer["from"], answer["to"]
    lines = [
        f"{source['name']} (identity {source['identity']}) -> {destination['name']}"
        f" (identity {destination['identity']}) port {answer['port']}: {answer['verdict'].upper()}"
    ]
    for side in ("egress", "ingress"):
        found = answer[side]
        if found is None:
            lines.append(f"  {side}: not judged (no pod of this cluster)")
            continue
        lines.append(f"  {side}: {found['verdict']} ({found['reason'] or 'match ' + found['match']}), by")
        lines += [f"    {rule['action']}  {rule['path']}" for rule in found["rules"]]
        if found.get("enforced_by"):
            lines.append(f"    since {', '.join(found['enforced_by'])} selects this pod and nothing in force allows it")
        decided = {(rule["path"], rule["action"]) for rule in found["rules"]}
        also = [rule for rule in found["applying"] if (rule["path"], rule["action"]) not in decided]
        lines += [f"    also applies: {rule['action']}  {rule['path']}" for rule in also]
    return "\n".join(lines)
