"""Options of the driver: the part of the configuration's `store:` section that is its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from ciliate.store import InvalidError

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Options(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where the API server is, as whom to speak to it, and how patiently. All have defaults."""

    kubeconfig: str = ""
    """A kubeconfig file. Empty: in a pod its service account, elsewhere what kubectl would take."""
    context: str = ""
    """A context of the kubeconfig. Empty: its current one."""
    server: str = ""
    """The API server's URL, if not the one of the kubeconfig or the pod's environment: https://10.0.0.1:6443."""
    page: Annotated[int, msgspec.Meta(ge=1)] = 500
    """Objects asked for at a time."""
    streaming_lists: bool = True
    """Lists are had as streams from servers that can (they need less memory for it), else page by page."""
    connect_timeout: Seconds = 5.0
    """Seconds until a connection must have been made."""
    request_timeout: Seconds = 30.0
    """Seconds until a request must have been answered, waiting for a server that asks for patience included."""
    watch_seconds: Annotated[float, msgspec.Meta(ge=1)] = 300.0
    """A watch is begun anew after this many seconds, or up to twice as many."""
    silent_seconds: Seconds = 90.0
    """A watch of which nothing was heard for so long is begun anew. Servers say something once a minute."""
    first_pause: Seconds = 0.5
    """Seconds until a watch that failed is tried again; twice as long each time."""
    most_pause: Seconds = 10.0
    """Seconds between two tries at most."""
    credentials_seconds: Seconds = 60.0
    """Tokens, certificates and the kubeconfig are looked at so often, and read again if they have changed."""


def parse_options(options: Mapping[str, Any]) -> Options:
    """The options from a configuration. Raises InvalidError, naming the key."""
    try:
        parsed = msgspec.convert(dict(options), Options, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidError(f"{error}; known options are {', '.join(Options.__struct_fields__)}") from None
    if parsed.server and not parsed.server.startswith(("https://", "http://")):
        raise InvalidError(f"server {parsed.server!r} is not a URL, as https://10.0.0.1:6443")
    return parsed
