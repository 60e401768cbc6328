"""Starts the services in their order, keeps them alive, and stops them in the opposite order."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterable

from scripts.stack.folder import DataFolder
from scripts.stack.service import Keeper, Service
from scripts.stack.view import View

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Supervisor:
    """`stages`: services that are stopped one stage after the other, the last one first.

    The first stage is ready before the others start; they start together, for speed.
    """

    def __init__(self, folder: DataFolder, view: View, stages: list[list[Service]]) -> None:
        self._view = view
        self._stages = [
            [Keeper(service, folder.pid_file(service.name), view.log, view.say) for service in stage]
            for stage in stages
        ]
        self._signals = 0
        self._told_to_stop = asyncio.Event()
        self._hurrying: list[asyncio.Task[None]] = []

    async def run(self, on_ready: Callable[[], Awaitable[None]]) -> None:
        """Until SIGINT, SIGTERM or SIGHUP. Raises StackError; everything is stopped either way."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        stopped = asyncio.create_task(self._told_to_stop.wait())
        working = asyncio.create_task(self._work(on_ready))
        try:
            await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            for task in (working, stopped):
                task.cancel()
            await asyncio.gather(working, stopped, return_exceptions=True)
            await self._stop()

    def _on_signal(self) -> None:
        self._signals += 1
        if self._signals == 1:
            self._view.say("Stopping: runs in flight are put down at their last step. (Ctrl-C again: at once.)")
            self._told_to_stop.set()
        else:
            keepers = [keeper for stage in self._stages for keeper in stage]
            self._hurrying += [asyncio.create_task(keeper.stop(at_once=True)) for keeper in keepers]

    async def _work(self, on_ready: Callable[[], Awaitable[None]]) -> None:
        first, *others = self._stages
        await _all(keeper.start() for keeper in first)
        await _all(keeper.start() for stage in others for keeper in stage)
        await on_ready()
        await _all(keeper.keep() for stage in self._stages for keeper in stage)

    async def _stop(self) -> None:
        for stage in reversed(self._stages):
            await asyncio.gather(*(keeper.stop() for keeper in stage))
        await asyncio.gather(*self._hurrying)


async def _all(jobs: Iterable[Awaitable[None]]) -> None:
    """Together; the first StackError ends the others."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        for task in asyncio.as_completed(tasks):
            await task
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
