"""An agent with cni, ipam and a policy that allows all: `python -m tests.node.cni_agent CONFIG [WORD ...]`.

Words: `one-way` (endpoints with even ids may only answer), MAP=ENTRIES (as another version that sizes a map otherwise),
or what tests.node.stranger takes, which then is one of the plugins.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from pathlib import Path

from ciliate.config import load_settings
from ciliate.host import Host
from ciliate.logs import configure_logs
from ciliate.maps.spec import MapSpec
from ciliate.plugin import Plugin

from tests.node.cni_policy import AllowAll
from tests.node.stranger import Stranger


def resize(plugin: Plugin, sizes: dict[str, int]) -> None:
    """Have a plugin declare maps of other sizes."""
    declared: list[MapSpec] = list(plugin.ciliate_maps())  # type: ignore[attr-defined]
    changed = [dataclasses.replace(spec, max_entries=sizes.get(spec.name, spec.max_entries)) for spec in declared]
    plugin.ciliate_maps = lambda: changed  # type: ignore[attr-defined]


def main() -> None:
    words = sys.argv[2:]
    host = Host.load(load_settings(Path(sys.argv[1]), environment={}), "agent", "agent")
    configure_logs(host.config.log)
    plugins: list[Plugin] = [AllowAll("one-way" in words)]
    plugins += [Stranger(word) for word in words if ":" in word]
    for plugin in plugins:
        host.loaded.manager.register(plugin, name=plugin.name)
        host.loaded.plugins[plugin.name] = plugin
    sizes = {name: int(size) for name, _, size in (word.partition("=") for word in words) if size}
    for plugin in host.loaded.plugins.values():
        if hasattr(plugin, "ciliate_maps"):
            resize(plugin, sizes)
    asyncio.run(host.run())


if __name__ == "__main__":
    main()
