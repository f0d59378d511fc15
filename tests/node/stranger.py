"""A process of a plugin from elsewhere: `python -m tests.node.stranger CONFIG OBJECT:PROGRAM:ORDER:PORT`.

It has the node's configuration and none of the node's other plugins. The class is what such a package ships.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path

from ciliate.config import load_settings
from ciliate.hookspecs import hookimpl
from ciliate.host import Host
from ciliate.logs import configure_logs
from ciliate.plugin import Plugin
from ciliate.programs.points import PointProgram


class Stranger(Plugin):
    """Ships one BPF program, whose constant `denied_port`, if it has one, is given."""

    name = "stranger"

    def __init__(self, word: str) -> None:
        path, program, order, port = word.split(":")
        rodata = {"denied_port": int(port)} if program == "deny_port" else {}
        self._program = PointProgram("from_pod", Path(path), program, int(order), rodata)

    @hookimpl
    def ciliate_programs(self) -> Iterable[PointProgram]:
        return (self._program,)


def main() -> None:
    host = Host.load(load_settings(Path(sys.argv[1]), environment={}), "stranger", "stranger")
    configure_logs(host.config.log)
    plugin = Stranger(sys.argv[2])
    host.loaded.manager.register(plugin, name=plugin.name)
    host.loaded.plugins[plugin.name] = plugin
    asyncio.run(host.run())


if __name__ == "__main__":
    main()
