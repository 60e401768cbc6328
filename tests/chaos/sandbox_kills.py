"""Kills workers around their sandboxes: `python -m tests.chaos.sandbox_kills REDIS_URL SETTINGS KILLS SEED`.

SETTINGS is the JSON of what differs from the default settings. A worker is a process of its own with many runs, killed
from outside at a random moment; each attempt that ended by it is a kill. Now and then its runs are taken from it before
it dies, so that two workers are at one sandbox. Prints what it found as JSON.
"""

import asyncio
import json
import logging
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from redis.asyncio import Redis

from modem.orphans import OrphanSweeper
from shared import keys
from shared.config import Settings
from shared.db.engine import Database
from shared.ids import new_run_id, new_thread_id, thread_of
from shared.install import Install
from shared.keys import ThreadKeys
from shared.redis import connect
from shared.threads.store import ThreadStore
from shared.threads.types import NewRun, NewThread
from shared.types import RunStatus
from shared.workers.registry import WorkerRegistry
from tests.chaos.sandbox_work import Left, book, judge
from tests.support.databases import put_database
from tests.workflow.support import Playbook, a_runtime, outside
from workflow.runner import Runner, Signals
from workflow.sandbox import orphans
from workflow.sandbox.base import SandboxProvider
from workflow.sandbox.choose import choose_provider
from workflow.sandbox.remote_provider import RemoteProvider
from workflow.tool.catalogue import all_tools

INSTALL = Install("sandbox-kills", "sandbox-kills")
RUNS_AT_ONCE = 16
LONGEST_SECONDS = {"local": 1.5, "e2b": 5.0}  # that a worker which is to be killed lives
LATE_SHARE = 0.25  # of the killed workers lose their runs before their life
POLL_SECONDS = 0.01
MAX_WORKERS = 500  # for one batch of runs


class SandboxKills:
    """`found` counts what `judge` does, the kills, and the sandboxes that nobody wants."""

    def __init__(self, url: str, settings: Settings, seed: int) -> None:
        self.found: Counter[str] = Counter()
        self._url = url
        self._settings = settings
        self._random = random.Random(seed)
        self._late: list[int] = []
        choose_provider(settings, INSTALL)  # imports what is optional: a worker would be killed while it does

    def until(self, kills: int) -> None:
        """Batches of runs, until so many attempts were killed and the last run has ended."""
        while True:
            self._batch(kills)
            if self.found["attempts killed"] >= kills:
                break

    def _batch(self, kills: int) -> None:
        run_ids = asyncio.run(self._submit())
        for number in range(MAX_WORKERS):
            name = f"w{number}"
            pid = self._start(name, run_ids)
            if self.found["attempts killed"] >= kills:
                os.waitpid(pid, 0)
            else:
                self._end(pid)
            if not asyncio.run(self._take(run_ids)):
                break
        else:
            raise AssertionError(f"runs do not end: {self.found}")
        self._kill_late()
        self.found += self._judged_apart(run_ids)

    def _start(self, name: str, run_ids: list[str]) -> int:
        return _forked(lambda: self._work(name, run_ids))

    def _judged_apart(self, run_ids: list[str]) -> Counter[str]:
        """In a process of its own: one that has used a provider's SDK cannot be forked any more."""
        reader, writer = os.pipe()

        async def judge() -> None:
            os.write(writer, json.dumps(await self._judged(run_ids)).encode())

        pid = _forked(judge)
        os.close(writer)
        with os.fdopen(reader, "rb") as answer:
            found = Counter[str](json.load(answer))
        os.waitpid(pid, 0)
        return found

    def _end(self, pid: int) -> None:
        """Kills a worker at a random moment, or leaves it to be killed when the next one has its runs."""
        longest = LONGEST_SECONDS[self._settings.sandbox.provider]
        deadline = time.monotonic() + longest * self._random.random() ** 2
        while time.monotonic() < deadline:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
            time.sleep(POLL_SECONDS)
        self._kill_late()
        self.found["workers killed"] += 1
        self._late.append(pid)
        if self._random.random() > LATE_SHARE:
            self._kill_late()

    def _kill_late(self) -> None:
        while self._late:
            pid = self._late.pop()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    async def _work(self, worker: str, run_ids: list[str]) -> None:
        async with connect(self._url, timeout_seconds=5, max_connections=100) as client:
            runtime = replace(
                a_runtime(Playbook(book()), client=client),
                all_tools=all_tools(self._settings),
                sandboxes=choose_provider(self._settings, INSTALL),
            )
            runner = Runner(outside(client), runtime)
            await asyncio.gather(*(runner.execute(run_id, worker, Signals()) for run_id in run_ids))
            await runtime.sandboxes.close()

    async def _submit(self) -> list[str]:
        run_ids = []
        async with connect(self._url, timeout_seconds=5, max_connections=5) as client:
            store = outside(client).store
            for _ in range(RUNS_AT_ONCE):
                thread = await store.create_thread(NewThread(new_thread_id(), "w"))
                run_ids.append(new_run_id(thread.id))
                await store.submit(NewRun(run_ids[-1], "w", {"task": "work"}), queued={})
        return run_ids

    async def _take(self, run_ids: list[str]) -> bool:
        """From workers that are dead, or soon will be. Whether runs are left to do."""
        left = False
        async with connect(self._url, timeout_seconds=5, max_connections=5) as client:
            store = outside(client).store
            for run_id in run_ids:
                run = await store.run(run_id)
                assert run is not None
                left |= run.status in (RunStatus.PENDING, RunStatus.RUNNING)
                if run.status is RunStatus.RUNNING and run.worker:
                    self.found["attempts killed"] += 1
                    await store.expire(run_id, run.worker, max_attempts=1000)
        return left

    async def _judged(self, run_ids: list[str]) -> Counter[str]:
        provider = choose_provider(self._settings, INSTALL)
        async with connect(self._url, timeout_seconds=5, max_connections=5) as client:
            found = Counter[str]()
            for run_id in run_ids:
                found += await _judge_run(outside(client).store, run_id, provider)
            if isinstance(provider, RemoteProvider):
                async with _no_archive() as database:
                    found += await _sweep(provider, client, database, [thread_of(run_id) for run_id in run_ids])
        await provider.close()
        return found


def _forked(work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """The pid of a child that does it; its exit code is 1 where it fails."""
    child = os.fork()
    if not child:
        code = 1
        try:
            asyncio.run(work())
            code = 0
        except Exception:
            logging.exception("process %s failed", os.getpid())
        finally:
            os._exit(code)
    return child


async def _judge_run(store: ThreadStore, run_id: str, provider: SandboxProvider) -> Counter[str]:
    [thread], run = await store.threads([thread_of(run_id)]), await store.run(run_id)
    assert run is not None
    found = Counter(runs=1)
    found["not succeeded"] = run.status is not RunStatus.SUCCEEDED
    sandbox = await provider.acquire(thread.id, thread.sandbox)
    return found + judge(await Left.of(sandbox), await store.journal(run_id))


@asynccontextmanager
async def _no_archive() -> AsyncIterator[Database]:
    """SQL that has none of the threads."""
    with TemporaryDirectory() as folder:
        put_database(Path(folder))
        database = Database.from_settings(Settings(data=Path(folder)))
        yield database
        await database.close()


async def _sweep(provider: RemoteProvider, client: Redis, database: Database, thread_ids: list[str]) -> Counter[str]:
    """Sweeps while the threads are there, when one machine of each must stay, and once they are gone."""
    orphans.YOUNG_SECONDS = -1
    await client.set(keys.INSTALL, INSTALL.redis)
    sweep = partial(orphans.sweep_machines, provider.cloud)
    sweeper = OrphanSweeper(sweep, client, database, _Alone(client))
    found = Counter[str]({"second machines swept": len(await sweeper.tick("alone"))})
    threads = [machine.thread_id for machine in await provider.cloud.find()]
    found["sandboxes of no thread"] = len(threads) - len(set(threads) & set(thread_ids))
    found["wanted sandboxes swept"] = len(thread_ids) - len(set(threads))
    await client.delete(*(ThreadKeys(thread_id).metadata for thread_id in thread_ids))
    found["machines swept with their threads"] = len(await sweeper.tick("alone"))
    found["sandboxes of no thread"] += len(await provider.cloud.find())
    return found


class _Alone(WorkerRegistry):
    async def names(self) -> list[str]:
        return ["alone"]


def main() -> None:
    logging.basicConfig(level=logging.ERROR)  # an attempt that loses its run says so, and many do
    url, fields, kills, seed = sys.argv[1:]
    given: dict[str, Any] = json.loads(fields)
    experiment = SandboxKills(url, Settings.model_validate(given), int(seed))
    experiment.until(int(kills))
    print(json.dumps(experiment.found))


if __name__ == "__main__":
    main()
