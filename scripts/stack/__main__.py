"""`scripts/up`: the embedded stack in the foreground."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.stack.banner import banner
from scripts.stack.errors import StackError
from scripts.stack.folder import MARK, DataFolder
from scripts.stack.ports import free_port, require_free
from scripts.stack.services import LOCAL_MODEL, Addresses, Services
from scripts.stack.supervisor import Supervisor
from scripts.stack.view import View
from shared import tickets
from shared.config import Settings, load_settings
from shared.db.engine import Database
from shared.db.schema import upgrade
from shared.errors import AppError
from shared.secrets import mask_secrets

LINK_SECONDS = 24 * 3600


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/up", description="Starts Trunkline on this machine, in the foreground. Ctrl-C stops it."
    )
    parser.add_argument("--port", type=int, help="the gateway's port (8000; 0: any free one)")
    parser.add_argument("--data", type=Path, help="the data folder (./data)")
    parser.add_argument("--workers", type=_at_least_one, default=1, help="worker processes (1)")
    parser.add_argument("--model", help='any LiteLLM model name, "demo", or "local": a small one on this machine')
    return parser.parse_args(arguments)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("should be 1 or more")
    return int(text)


def settings_of(options: argparse.Namespace) -> Settings:
    """What is configured, with the command line on top. Raises AppError."""
    environment = dict(os.environ)
    given = {
        MARK: options.data and str(options.data.absolute()),
        "TRUNKLINE__API__PORT": free_port() if options.port == 0 else options.port,
        "TRUNKLINE__LLM__MODEL": LOCAL_MODEL if options.model == "local" else options.model,
    }
    environment.update({name: str(value) for name, value in given.items() if value is not None})
    return load_settings(environment)


async def serve(options: argparse.Namespace, settings: Settings, folder: DataFolder, view: View) -> None:
    require_free(settings.api.host, settings.api.port)
    folder.key()
    await migrate(settings)
    addresses = Addresses.choose(settings, local_model=options.model == "local")
    services = Services(folder, settings, addresses)
    stages = [[services.valkey()], [services.sandbox_host()]]
    if addresses.model_port:
        stages.append([services.local_model()])
    stages += [[services.gateway()], [services.worker(number) for number in range(1, options.workers + 1)]]

    async def on_ready() -> None:
        ticket = await tickets.issue(services.redis, "default", seconds=LINK_SECONDS)
        url = settings.api.public_url or addresses.url
        folder.announce(addresses.url)
        view.show(banner(view, settings, folder.path, url, f"{url}/session?ticket={ticket}"))

    try:
        await Supervisor(folder, view, stages).run(on_ready)
    finally:
        folder.retract()
        await services.redis.aclose()


async def migrate(settings: Settings) -> None:
    """Raises AppError where the database is away, or a newer release's."""
    database = Database.from_settings(settings)
    try:
        await upgrade(database)
    finally:
        await database.close()


def main() -> int:
    options = parse()
    os.umask(0o077)  # the data folder's files are for their owner
    try:
        settings = settings_of(options)
        folder = DataFolder(settings.data)
        with folder.held():
            view = View(folder.logs)
            try:
                asyncio.run(serve(options, settings, folder, view))
                view.say("Stopped.")
            finally:
                view.close()
    except (StackError, AppError) as error:
        print(mask_secrets(str(error)), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
