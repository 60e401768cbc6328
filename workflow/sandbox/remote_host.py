"""The remote host: `python -m workflow.sandbox.remote_host`, by which gateways reach sandboxes that are elsewhere.

Gateways know no provider: this process has the providers' SDKs and keys, and stands at `sandbox.host_url` where
`sandbox.provider` is another one than local. It keeps nothing; start as many as you like. Workers do not need it.
"""

import asyncio
import logging
import os
import signal
import socket
import sys

import uvloop

from shared.config import Settings, load_settings
from shared.errors import AppError, ErrorCode
from shared.install import find_install
from shared.log import configure_logging
from shared.redis import connect
from workflow.sandbox.choose import choose_provider
from workflow.sandbox.remote_api import RemoteApi
from workflow.sandbox.remote_provider import RemoteProvider
from workflow.sandbox.remotes import Remotes
from workflow.sandbox.serving import listen, server_of, token_of

log = logging.getLogger("trunkline.sandbox")

LOCAL = (
    "Sandboxes are local here (sandbox.provider), and they have a host of their own: python -m workflow.sandbox.host."
)


async def serve(settings: Settings, listener: socket.socket, token: str) -> None:
    """Until SIGTERM or SIGINT. Raises AppError INVALID_CONFIG."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    provider = await provider_of(settings)
    try:
        server = server_of(RemoteApi(Remotes(provider, settings.sandbox)).app(token))
        serving = asyncio.create_task(server.serve([listener]))
        stopping = asyncio.create_task(stop.wait())
        log.info("sandboxes at %s, for gateways at %s", settings.sandbox.provider, settings.sandbox.host_url)
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        await provider.close()


async def provider_of(settings: Settings) -> RemoteProvider:
    """Raises AppError INVALID_CONFIG."""
    client = connect(settings.redis.url, timeout_seconds=settings.redis.timeout_seconds, max_connections=2)
    try:
        provider = choose_provider(settings, await find_install(settings.sandbox, client))
    finally:
        await client.aclose()
    if not isinstance(provider, RemoteProvider):
        raise AppError(ErrorCode.INVALID_CONFIG, LOCAL)
    return provider


def main() -> int:
    os.umask(0o077)
    try:
        settings = load_settings()
        configure_logging(settings.log, "remote-host")
        if settings.sandbox.provider == "local":
            raise AppError(ErrorCode.INVALID_CONFIG, LOCAL)
        listener = listen(settings.sandbox.host_url)
        uvloop.run(serve(settings, listener, token_of(settings.sandbox_token_file)))
    except AppError as error:
        print(error.detail, file=sys.stderr)  # noqa: T201 - the settings, and with them the log, may be what is wrong
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
