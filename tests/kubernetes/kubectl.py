"""The real kubectl, against a control plane."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.kubernetes.daemons import LIMIT, wait_for
from tests.kubernetes.programs import kubernetes

Manifest = Mapping[str, Any]


class Kubectl:
    """Runs kubectl with one kubeconfig, in a network namespace if `enter` says so."""

    def __init__(self, kubeconfig: Path, enter: Sequence[str] = ()) -> None:
        self.kubeconfig = kubeconfig
        self._command = [*enter, str(kubernetes("kubectl")), f"--kubeconfig={kubeconfig}"]

    def __call__(self, *words: str, stdin: str = "", check: bool = True, limit: float = LIMIT) -> str:
        """What a command prints. AssertionError with its words if it fails (unless check is False)."""
        done = self.run(*words, stdin=stdin, limit=limit)
        if check:
            said = f"kubectl {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
            assert done.returncode == 0, said
        return done.stdout

    def run(self, *words: str, stdin: str = "", limit: float = LIMIT) -> subprocess.CompletedProcess[str]:
        """Run a command, however it ends."""
        return subprocess.run(
            [*self._command, *words], input=stdin, capture_output=True, text=True, check=False, timeout=limit
        )

    def json(self, *words: str) -> Any:
        """What `kubectl ... -o json` prints."""
        return json.loads(self(*words, "-o", "json"))

    def items(self, *words: str) -> list[Any]:
        """The items of a list."""
        items: list[Any] = self.json(*words)["items"]
        return items

    def apply(self, *manifests: Manifest | str, check: bool = True) -> str:
        """Apply objects, or YAML."""
        texts = [m if isinstance(m, str) else json.dumps(m) for m in manifests]
        return self("apply", "-f", "-", stdin="\n---\n".join(texts), check=check)

    def delete(self, *manifests: Manifest | str) -> str:
        """Delete objects, and wait until they are gone; what is not there is fine."""
        texts = [m if isinstance(m, str) else json.dumps(m) for m in manifests]
        return self("delete", "--ignore-not-found", "-f", "-", stdin="\n---\n".join(texts))

    def wait(self, what: str, *words: str, condition: Callable[[Any], object], limit: float = LIMIT) -> Any:
        """Wait until what `kubectl get <words>` finds fulfils a condition; the object or list."""

        def look() -> Any:
            done = self.run("get", *words, "-o", "json")
            found = json.loads(done.stdout) if done.returncode == 0 and done.stdout else None
            return found if found is not None and condition(found) else None

        return wait_for(what, look, limit, every=0.1)
