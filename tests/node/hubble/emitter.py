"""A stranger's process that has read requests: `python -m tests.node.hubble.emitter CONFIG RECORDS`.

It has the node's configuration and none of the node's other plugins. Once somebody reads the topic it emits the L7
records of the file, says so, and goes on to live.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from ciliate.config import load_settings
from ciliate.context import Context
from ciliate.events import TopicSpec
from ciliate.hookspecs import hookimpl
from ciliate.host import Host
from ciliate.logs import configure_logs
from ciliate.model.l7 import L7_RECORDS, L7Record
from ciliate.plugin import Plugin


class Emitter(Plugin):
    """Reads requests, as a proxy's plugin would."""

    name = "emitter"

    def __init__(self, records: Path) -> None:
        self._records = msgspec.json.decode(records.read_bytes(), type=list[L7Record])

    @hookimpl
    def ciliate_topics(self) -> Iterable[TopicSpec[Any]]:
        return (L7_RECORDS,)

    @hookimpl
    def ciliate_setup(self, context: Context) -> None:
        async def emit() -> None:
            while not context.events.queues(L7_RECORDS.name):
                await asyncio.sleep(0.02)
            for record in self._records:
                context.events.emit(L7_RECORDS, record)
            print("emitted", flush=True)
            await asyncio.Event().wait()

        context.spawn("emit", emit)


def main() -> None:
    host = Host.load(load_settings(Path(sys.argv[1]), environment={}), "emitter", "emitter")
    configure_logs(host.config.log)
    plugin = Emitter(Path(sys.argv[2]))
    host.loaded.manager.register(plugin, name=plugin.name)
    host.loaded.plugins[plugin.name] = plugin
    asyncio.run(host.run())


if __name__ == "__main__":
    main()
