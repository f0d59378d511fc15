"""A server with TLS, as a program: `tls_server.py FOLDER` prints its port and serves until its input ends."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import structlog
from ciliate.health import Health
from ciliate_hubble.certificates.credentials import server_credentials
from ciliate_hubble.certificates.material import FileKeeper, Files


async def main(folder: Path) -> None:
    """Serve."""
    import grpc.aio

    files = Files(str(folder / "tls.crt"), str(folder / "tls.key"), (str(folder / "ca.crt"),))
    keeper = FileKeeper(files, Health("test"), "tls", structlog.get_logger("test"))
    keeper.take(files.read(), str(folder))
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", server_credentials(keeper, client_certificates=True))
    await server.start()
    print(port, file=sys.__stdout__, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(Path(sys.argv[1])))
