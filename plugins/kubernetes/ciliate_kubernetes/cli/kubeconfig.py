"""Where a kubeconfig is, and which contexts it has: what must be known before anything heavy is imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from ciliate.cli.dispatch import KUBECONFIG, CommandError


def files() -> list[Path]:
    """The kubeconfig's files that there are: of --kubeconfig, KUBECONFIG, or kubectl's default place."""
    named = os.environ.get(KUBECONFIG) or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    found = [path for path in map(Path, named.split(":")) if path.is_file()]
    if os.environ.get(KUBECONFIG) and not found:
        raise CommandError(f"--kubeconfig {named}: no such file")
    return found


def contexts(paths: list[Path]) -> tuple[str, list[str]]:
    """(the current context, all of them). Raises CommandError on a file that is no kubeconfig."""
    current, names = "", []
    for path in paths:
        try:
            content: Any = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            current = current or content.get("current-context") or ""
            names += [context["name"] for context in content.get("contexts") or ()]
        except (OSError, yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
            raise CommandError(f"{path} is no kubeconfig: {error}") from error
    return current, names


def in_pod() -> bool:
    """Whether this runs in a pod that has a service account."""
    account = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    return "KUBERNETES_SERVICE_HOST" in os.environ and account.exists()
