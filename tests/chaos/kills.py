"""Kills workers inside tools, again and again: `python -m tests.chaos.kills REDIS_URL FOLDER KILLS SEED`.

Each attempt of each run is a process of its own, forked from this one, which kills itself before or after an effect.
Prints what it found as JSON.
"""

import asyncio
import itertools
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from shared.ids import new_run_id, new_thread_id
from shared.redis import connect
from shared.threads.steps import StepRecord
from shared.threads.types import NewRun, NewThread, Run
from shared.types import RunStatus, StepStatus
from tests.chaos.ledger import Ledger
from tests.chaos.tools import BlindTool, ChargeTool, KeyedTool, LookTool
from tests.workflow.support import Playbook, a_runtime, outside, turn
from workflow.runner import Runner, Signals
from workflow.tool.registry import Registry

TOOLS = (LookTool, KeyedTool, ChargeTool, BlindTool)
CALLS = ("look", "keyed", "charge", "blind", "blind", "keyed")


class Kills:
    """`found` counts effects: keyed and charge `twice`, blind ones `unannounced`, ..."""

    def __init__(self, url: str, folder: Path, seed: int) -> None:
        self.found: Counter[str] = Counter()
        self._url = url
        self._ledger = Ledger(folder)
        self._random = random.Random(seed)
        self._ended: list[tuple[Run, list[StepRecord], dict[str, str]]] = []

    def until(self, kills: int) -> None:
        """Runs one after another, until so many attempts were killed and the last run has ended."""
        for number in itertools.count():
            if self.found["kills"] >= kills:
                break
            self._run(f"run-{number}")
        keys = self._ledger.keys_of_keyed()
        for run, steps, ops in self._ended:
            self._judge(run, {step.key: step.status for step in steps}, ops, keys)

    def _run(self, name: str) -> None:
        ops = {f"{name}-{place}": tool for place, tool in enumerate(CALLS)}
        run_id = asyncio.run(self._submit(name))
        for attempt in itertools.count(1):
            worker = f"w{attempt}"
            dies_at = self._random.randint(1, 2 * len(CALLS))
            if self._attempt(run_id, worker, ops, dies_at):
                break
            self.found["kills"] += 1
            asyncio.run(self._expire(run_id, worker))
        self._ended.append((*asyncio.run(self._read(run_id)), ops))

    def _attempt(self, run_id: str, worker: str, ops: dict[str, str], dies_at: int) -> bool:
        """Whether it lived to its end."""
        child = os.fork()
        if not child:
            code = 1
            try:
                asyncio.run(self._execute(run_id, worker, ops, _dies_at(dies_at)))
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"an attempt of {run_id} broke off"
        return not os.WIFSIGNALED(status)

    async def _execute(self, run_id: str, worker: str, ops: dict[str, str], point: Callable[[str], None]) -> None:
        book = [turn("", (f"call-{op}", tool, json.dumps({"op": op}))) for op, tool in ops.items()]
        tools = Registry(kind(self._ledger, point, 0) for kind in TOOLS)
        runtime = replace(a_runtime(Playbook([*book, turn("Done.")])), all_tools=tools)
        async with connect(self._url, timeout_seconds=5, max_connections=5) as client:
            await Runner(outside(client), runtime).execute(run_id, worker, Signals())

    async def _submit(self, name: str) -> str:
        async with connect(self._url, timeout_seconds=5, max_connections=5) as client:
            store = outside(client).store
            thread = await store.create_thread(NewThread(new_thread_id(), "w"))
            run_id = new_run_id(thread.id)
            await store.submit(NewRun(run_id, "w", {"task": name}), queued={})
            return run_id

    async def _expire(self, run_id: str, worker: str) -> None:
        async with connect(self._url, timeout_seconds=5, max_connections=5) as client:
            await outside(client).store.expire(run_id, worker, max_attempts=1000)

    async def _read(self, run_id: str) -> tuple[Run, list[StepRecord]]:
        async with connect(self._url, timeout_seconds=5, max_connections=5) as client:
            store = outside(client).store
            run = await store.run(run_id)
            assert run is not None
            return run, await store.journal(run_id)

    def _judge(
        self, run: Run, status: dict[str, StepStatus], ops: dict[str, str], keys: Mapping[str, set[str]]
    ) -> None:
        self.found["runs"] += 1
        self.found["not succeeded"] += run.status is not RunStatus.SUCCEEDED
        for op, tool in ops.items():
            announced = status[f"tool:call-{op}"] is StepStatus.UNKNOWN
            if tool == "blind":
                done = self._ledger.blind(op)
                self.found["announced"] += announced
                self.found["unannounced repeats"] += done > 1 + announced
                self.found["repeats"] += done > 1
                self.found["said to be done and not"] += done == 0 and not announced
            elif tool != "look":
                self.found["keyed effects"] += len(keys[op])
                self.found["keyed twice or never"] += len(keys[op]) != 1 or announced


def _dies_at(count: int) -> Callable[[str], None]:
    """Kills this process when it passes a point for the count-th time."""
    passed = itertools.count(1)

    def point(_: str) -> None:
        if next(passed) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    return point


def main() -> None:
    url, folder, kills, seed = sys.argv[1:]
    experiment = Kills(url, Path(folder), int(seed))
    experiment.until(int(kills))
    print(json.dumps(experiment.found))


if __name__ == "__main__":
    main()
