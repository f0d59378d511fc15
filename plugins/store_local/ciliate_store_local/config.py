"""Options of the driver: the part of the configuration's `store:` section that is its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from ciliate.store import InvalidError


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to keep the objects. Only `path` must be given."""

    path: str
    """The database file. Its folder is made if it is missing; `<path>.watchers/` is made beside it."""
    history: int = 10_000
    """Changes kept for watchers. One that is further behind is told that its revision has expired."""
    history_bytes: int = 64 << 20
    """Bytes of kept changes; the first of the two limits to be reached counts."""
    lock_timeout: float = 5.0
    """Seconds to wait for another process's write before UnavailableError."""
    object_bytes: int = 1_572_864
    """The largest object, as JSON. The default is etcd's."""
    events: int = 2_000
    """Kubernetes Events kept. An API server keeps them for an hour; here the oldest go when there are more."""
    poll: float = 5.0
    """Seconds after which a watcher looks for changes even if nobody woke it."""

    @property
    def file(self) -> Path:
        """The database file as an absolute path."""
        return Path(self.path).absolute()


def parse_options(options: Mapping[str, Any]) -> Options:
    """The options from a configuration. Raises InvalidError, naming the key."""
    try:
        parsed = msgspec.convert(dict(options), Options)
    except msgspec.ValidationError as error:
        raise InvalidError(f"store options: {error}. Known options: {', '.join(Options.__struct_fields__)}") from None
    if not parsed.path or parsed.history < 1 or parsed.history_bytes < 1 or parsed.object_bytes < 1:
        raise InvalidError(
            "store options: path must not be empty; history, history_bytes, object_bytes must be at least 1"
        )
    if parsed.lock_timeout <= 0 or parsed.poll <= 0:
        raise InvalidError("store options: lock_timeout and poll must be more than 0 seconds")
    return parsed
