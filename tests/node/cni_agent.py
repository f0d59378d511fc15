"""An agent with cni, ipam and a policy that allows all: `python -m tests.node.cni_agent CONFIG`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from ciliate.config import load_settings
from ciliate.host import Host
from ciliate.logs import configure_logs

from tests.node.cni_policy import AllowAll


def main() -> None:
    host = Host.load(load_settings(Path(sys.argv[1]), environment={}), "agent", "agent")
    configure_logs(host.config.log)
    plugin = AllowAll()
    host.loaded.manager.register(plugin, name=plugin.name)
    host.loaded.plugins[plugin.name] = plugin
    asyncio.run(host.run())


if __name__ == "__main__":
    main()
