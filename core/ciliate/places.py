"""Where a process keeps things, and the store that it is configured to use: a command needs no more of the host."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

from ciliate.config import ConfigError, CoreConfig
from ciliate.context import NodePlace
from ciliate.loading import load_driver
from ciliate.store import InvalidError, Kind, Store


def node_place(config: CoreConfig, process: str, role: str) -> NodePlace:
    """Where this process keeps things."""
    node = config.node
    return NodePlace(
        name=node.name or socket.gethostname(),
        cluster=config.cluster.name,
        role=role,
        process=process,
        run_dir=Path(node.run_dir),
        state_dir=Path(node.state_dir),
        bpffs=Path(node.bpffs),
        namespace=config.cluster.namespace,
    )


def open_store(config: CoreConfig, kinds: Iterable[Kind] = ()) -> Store:
    """The configured store. Raises ConfigError if there is no such driver, or an option of it is wrong."""
    try:
        driver = load_driver("ciliate.store", config.store.driver)
    except LookupError as error:
        raise ConfigError(f"store.driver: {error}") from error
    config.store.checked(driver.options)
    try:
        store: Store = driver(config.store.options, tuple(kinds))
    except InvalidError as error:
        raise ConfigError(f"store: {error}") from error
    return store
