"""A worker without processes: it takes what was rung for, and sweeps."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis

from modem.agenda import Agenda
from shared.events.bus import Topic
from shared.ids import SHARDS, new_run_id, new_thread_id
from shared.threads.types import NewRun, NewThread, Run
from shared.types import Runnable, RunStatus, StepStatus
from tests.workflow.support import Playbook, a_runtime, outside, turn
from workflow.engine.durable import DurableFunction, durable
from workflow.engine.step import Step
from workflow.runner import Runner, Signals

Flow = Callable[[Step, Any], Awaitable[Any]]
FINISHED = (StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.CANCELED)


async def as_any(call: Any) -> Any:
    return await call


class Fleet:
    """`functions` are what its worker knows; `settings` as of Settings.

    `parks`: each attempt ends with the first step that it has finished, and another one replays the run so far.
    """

    def __init__(self, client: Redis, *, parks: bool = False, **settings: Any) -> None:
        self.client = client
        self.out = outside(client, **settings)
        self.functions: list[DurableFunction] = []
        self.attempts = 0
        self._draining = asyncio.Event()
        if parks:
            self._park_after_each_step()

    @property
    def runner(self) -> Runner:
        """A new one each time: nothing is kept in memory from one attempt to the next."""
        return Runner(self.out, a_runtime(Playbook([turn("An agent's answer.")]), functions=self.functions))

    async def start(self, flow: Flow, input: Any = None, name: str = "flow") -> str:
        self.functions.append(durable(name)(flow))
        return await self.submit(name, input)

    async def submit(self, name: str, input: Any, **parameters: Any) -> str:
        thread = await self.out.store.create_thread(NewThread(new_thread_id(), "w"))
        run_id = new_run_id(thread.id)
        new = NewRun(run_id, "w", {"input": input}, parameters, runnable_type=Runnable.FUNCTION, runnable_id=name)
        await self.out.ring((await self.out.store.submit(new, queued={})).ring)
        return run_id

    async def work(self) -> None:
        """Until nothing is rung for and nothing is due."""
        while await self.attempt():
            self.attempts += 1

    async def attempt(self) -> bool:
        """One attempt at what was rung for, if anything."""
        run_id = await self._rung()
        if run_id is not None:
            self._draining.clear()
            await self.out.ring(await self.runner.execute(run_id, "w1", Signals(draining=self._draining)))
        return run_id is not None

    def _park_after_each_step(self) -> None:
        call = self.out.store._scripts.call

        async def parking(name: str, keys: list[str], args: list[Any], **how: Any) -> Any:
            answer = await call(name, keys, args, **how)
            if name == "commit" and args[4] and args[6] in FINISHED:
                self._draining.set()
            return answer

        self.out.store._scripts.call = parking  # type: ignore[assignment, method-assign]

    async def _rung(self) -> str | None:
        await Agenda(self.out).tick(range(SHARDS))
        found: str | None = await as_any(self.client.lpop("rung"))
        return found

    async def run(self, run_id: str) -> Run:
        found = await self.out.store.run(run_id)
        assert found is not None
        return found

    async def until(self, run_id: str, status: RunStatus) -> Run:
        async with asyncio.timeout(30):
            while (run := await self.run(run_id)).status is not status:
                assert not run.status.terminal, run.error
                await self.work()
                await asyncio.sleep(0.02)
        return run

    async def publish(self, name: str, payload: Any = None, **to: Any) -> None:
        topic = Topic.of("w", name, **to)
        await self.out.bus.publish(topic, payload)

    async def leftovers(self) -> list[str]:
        """Index entries of all shards, and who waits on the bus."""
        patterns = ("timers:*", "rings:*", "live:*", "deliveries:*", "waiters:*", "approvals:*")
        return [key for pattern in patterns async for key in self.client.scan_iter(pattern)]
