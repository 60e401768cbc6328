"""A worker of the fleet: the product's own, with failpoints around it. `python -m tests.chaos.worker --name NAME`"""

import argparse
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from unittest.mock import patch

from redis.asyncio import Redis

from modem.__main__ import main as worker_main
from modem.worker import Worker
from shared.config import Settings
from tests.chaos.hooks import Hooks
from tests.chaos.ledger import Ledger
from tests.chaos.tools import TOOLS
from workflow.runtime import Runtime, open_runtime
from workflow.tool.bash import BashTool
from workflow.tool.registry import Registry


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    hooks = Hooks(parser.parse_args().name)
    hooks.install()
    _add_tools(hooks)
    _watch_worker(hooks)
    return worker_main()


def _add_tools(hooks: Hooks) -> None:
    @asynccontextmanager
    async def with_tools(settings: Settings, client: Redis) -> AsyncIterator[Runtime]:
        async with open_runtime(settings, client) as runtime:
            ledger = Ledger(hooks.root)
            yield replace(runtime, all_tools=Registry([BashTool(), *(kind(ledger, hooks.point) for kind in TOOLS)]))

    patch("modem.worker.open_runtime", with_tools).start()


def _watch_worker(hooks: Hooks) -> None:
    start, drain = Worker.start, Worker.drain

    def watched_start(worker: Worker) -> None:
        hooks.loop = worker._loop
        start(worker)

    def watched_drain(worker: Worker) -> None:
        hooks.draining = True
        drain(worker)

    patch.object(Worker, "start", watched_start).start()
    patch.object(Worker, "drain", watched_drain).start()


if __name__ == "__main__":
    sys.exit(main())
