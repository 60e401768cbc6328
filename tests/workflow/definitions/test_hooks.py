"""Hooks of agents: called in order, at least once, whoever dies."""

import asyncio
from typing import Any

from redis.asyncio import Redis

from shared.ids import new_run_id, new_thread_id
from shared.threads.types import NewRun, NewThread
from shared.types import AGENT_HOOKS, JSON, Runnable, RunStatus
from tests.workflow.support import Playbook, a_runtime, outside
from workflow.definitions import AgentRegistry, BaseAgent
from workflow.definitions.hooks import hooks_function
from workflow.runner import Runner, Signals, take_from

INPUT: JSON = {
    "definition": "k",
    "agent": {"id": "a", "name": "A", "workspace": "w"},
    "hooks": ["initialize", "activate"],
}


async def test_a_hook_that_a_worker_died_in_is_called_again_and_those_before_it_are_not(client: Redis) -> None:
    called: list[str] = []
    at_it = asyncio.Event()

    class Kind(BaseAgent):
        async def initialize(self) -> None:
            called.append(f"initialize {self.agent.id}")

        async def activate(self) -> None:
            called.append("activate")
            if not at_it.is_set():
                at_it.set()
                await asyncio.Event().wait()

    kinds = AgentRegistry()
    kinds.register(Kind, "k", "Kind.")
    out, runtime = outside(client), a_runtime(Playbook([]), functions=[hooks_function(kinds)], client=client)
    thread = new_thread_id()
    await out.store.create_thread(NewThread(thread, "w"))
    run_id = new_run_id(thread)
    new = NewRun(run_id, "w", {"input": INPUT}, runnable_type=Runnable.FUNCTION, runnable_id=AGENT_HOOKS)
    await out.store.submit(new, queued={})
    runner = Runner(out, runtime)
    dying = asyncio.create_task(runner.execute(run_id, "w1", Signals()))
    await asyncio.wait_for(at_it.wait(), 10)
    runner.drop("w1")
    await asyncio.wait_for(dying, 10)
    assert await take_from("w1", run_id, out.store, runtime) == run_id
    await asyncio.wait_for(Runner(out, runtime).execute(run_id, "w2", Signals()), 10)
    run: Any = await out.store.run(run_id)
    assert run.status is RunStatus.SUCCEEDED
    assert called == ["initialize a", "activate", "activate"]
