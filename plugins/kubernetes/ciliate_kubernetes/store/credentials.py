"""Where the API server is and as whom to speak to it: a pod's service account, or a kubeconfig, as it is now."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ciliate.store import UnavailableError
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_kube_config
from kubernetes.aio.config.incluster_config import (
    SERVICE_CERT_FILENAME,
    SERVICE_HOST_ENV_NAME,
    SERVICE_TOKEN_FILENAME,
    InClusterConfigLoader,
)

from ciliate_kubernetes.store.config import Options

_Seen = dict[str, tuple[int, int, int]]


class Credentials:
    """Reads them, and says when their files have changed: tokens and certificates are rotated under our feet."""

    def __init__(self, options: Options, token: str = SERVICE_TOKEN_FILENAME, ca: str = SERVICE_CERT_FILENAME) -> None:
        """token, ca: the files of a pod's service account."""
        self._options = options
        self._token, self._ca = token, ca
        self._seen: _Seen = {}

    @property
    def source(self) -> str:
        """Where they come from, for messages."""
        return f"the service account in {Path(self._token).parent}" if self._in_pod() else self._kubeconfig()

    def _in_pod(self) -> bool:
        return not self._options.kubeconfig and SERVICE_HOST_ENV_NAME in os.environ and Path(self._token).exists()

    def _kubeconfig(self) -> str:
        return self._options.kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")

    async def load(self) -> Configuration:
        """Read them. Raises UnavailableError: what is not there now may come."""
        configuration: Configuration = type.__call__(Configuration)  # not a copy of a default that somebody has set
        seen = dict(_look(self._files()))
        try:
            if self._in_pod():
                InClusterConfigLoader(self._token, self._ca, try_refresh_token=False).load_and_set(configuration)
            else:
                await self._load_kubeconfig(configuration)
        except (ConfigException, OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
            raise UnavailableError(f"no credentials for the API server in {self.source}: {error}") from error
        if self._options.server:
            configuration.host = self._options.server.rstrip("/")
        made = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
        self._seen = {**seen, **dict(_look([file for file in made if file]))}
        return configuration

    async def _load_kubeconfig(self, configuration: Configuration) -> None:
        if not dict(_look(self._kubeconfig().split(":"))):
            raise ConfigException("there is no such file; name one by store.kubeconfig")
        context = self._options.context or None
        await load_kube_config(self._kubeconfig(), context, configuration, persist_config=False)

    def changed(self) -> bool:
        """Whether any file that they came from is another one than when they were read."""
        return dict(_look({*self._seen, *self._files()})) != self._seen

    def forget(self) -> None:
        """What was read is no good: it counts as changed."""
        self._seen = {}

    def _files(self) -> list[str]:
        """The files that are known before anything is read; `load` adds those that the configuration names."""
        if self._in_pod():
            return [self._token, self._ca]
        files = self._kubeconfig().split(":")
        return [*files, *(token for file in files for token in _token_files(file))]


def _look(files: Any) -> Iterator[tuple[str, tuple[int, int, int]]]:
    for file in files:
        try:
            status = os.stat(file)  # noqa: PTH116, follows the links by which Kubernetes rotates mounted files
        except OSError:
            continue
        yield str(file), (status.st_ino, status.st_mtime_ns, status.st_size)


def _token_files(kubeconfig: str) -> Iterator[str]:
    """Files of tokens that a kubeconfig's users name."""
    try:
        users = yaml.safe_load(Path(kubeconfig).read_text()).get("users") or ()
        named = [(user.get("user") or {}).get("tokenFile") for user in users]
    except (OSError, yaml.YAMLError, AttributeError, TypeError):
        return
    for name in named:
        if name:
            yield str(Path(kubeconfig).parent / name)
