"""`ciliate install` and `ciliate uninstall`."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
import typer
from ciliate.cli.dispatch import CommandError
from ciliate.cli.processes import SetOption
from ciliate.store import Store

from ciliate_kubernetes.cli.cluster import KubernetesCluster, require

NamespaceOption = Annotated[
    str, typer.Option("-n", "--namespace", envvar="CILIATE_NAMESPACE", help="Where Ciliate's own objects are.")
]
LimitOption = Annotated[float, typer.Option("--timeout", help="Seconds at most.")]


def install(
    overrides: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the manifests; touch nothing.")] = False,
    image: Annotated[str, typer.Option(help="The image; default: of this version.")] = "",
    pull_policy: Annotated[str, typer.Option("--image-pull-policy", help="Always, IfNotPresent or Never.")] = "",
    operator_replicas: Annotated[int, typer.Option(min=0, help="Default: 2; with one node 1.")] = 0,
    api_server: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="How nodes reach the API server, where no kube-proxy runs.")
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Until all is well.")] = False,
    limit: LimitOption = 300.0,
    namespace: NamespaceOption = "kube-system",
) -> None:
    """Install Ciliate in a cluster, or bring an installation up to date; settings that were made stay."""
    from ciliate_kubernetes.install.installation import Installation, count_nodes
    from ciliate_kubernetes.install.rendering import PULL_POLICIES, Choices, default_settings, render, to_yaml
    from ciliate_kubernetes.install.settings import check, parse_flags

    if pull_policy and pull_policy not in PULL_POLICIES:
        raise CommandError(f"--image-pull-policy {pull_policy}: use one of {', '.join(PULL_POLICIES)}")
    if api_server and not api_server.rpartition(":")[2].isdigit():
        raise CommandError(f"--api-server {api_server}: must be HOST:PORT")
    made: dict[str, object] = {"image": image, "pull_policy": pull_policy, "operator_replicas": operator_replicas}
    chosen: dict[str, Any] = {name: value for name, value in {**made, "api_server": api_server}.items() if value}
    if dry_run:
        checked = check({**default_settings(), **parse_flags(overrides or ())})
        print(to_yaml(render(Choices(namespace=namespace, **chosen), checked)), end="")
        return

    async def work(store: Store) -> None:
        installation = Installation(store, namespace)
        before = await installation.read()
        kept = before.settings if before is not None else {}
        checked = check({**default_settings(), **kept, **parse_flags(overrides or ())})
        if before is not None:
            base = before.choices
        else:
            base = Choices(namespace=namespace, operator_replicas=min(2, max(1, await count_nodes(store))))
        choices = msgspec.structs.replace(base, **chosen)
        for note in checked.notes:
            print(f"note: {note}")
        await installation.apply(choices, checked, lambda line: print(line, flush=True))

    cluster = require()
    cluster.namespace = namespace
    cluster.work(work)
    if wait:
        _wait(cluster, limit)


def _wait(cluster: KubernetesCluster, limit: float) -> None:
    """Until a report has no problem. Raises CommandError."""
    deadline = time.monotonic() + limit
    while (report := cluster.report()).problems:
        if time.monotonic() > deadline:
            said = "\n".join(f"  {p.component} ({p.where}): {p.text}" for p in report.problems)
            raise CommandError(f"installed, but after {limit:g} s not well; `ciliate status` tells more:\n{said}")
        time.sleep(1)
    print(f"cluster {cluster.name} is well")


def uninstall(
    limit: LimitOption = 300.0,
    definitions: Annotated[
        bool, typer.Option("--crds", help="Custom resource definitions too, and so all policies that are of them.")
    ] = False,
    namespace: NamespaceOption = "kube-system",
) -> None:
    """Take Ciliate off a cluster: its pods, what nodes keep of it, its objects. Pods lose their network."""
    from ciliate_kubernetes.install.installation import Installation, InstallError

    async def work(store: Store) -> None:
        installation = Installation(store, namespace)
        before = await installation.read()
        if before is None:
            print(f"Ciliate is not installed in namespace {namespace} of cluster {cluster.name}")
            if definitions:
                await installation.remove_definitions(time.monotonic() + limit, print)
            return
        await installation.remove(before.choices, limit, definitions, lambda line: print(line, flush=True))

    cluster = require()
    try:
        cluster.work(work)
    except (InstallError, TimeoutError) as error:
        raise CommandError(str(error)) from error
