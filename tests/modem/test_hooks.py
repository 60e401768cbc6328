"""Hook runs that nobody submitted: found in SQL, and submitted once."""

from datetime import UTC, datetime, timedelta

from redis.asyncio import Redis

from modem.hooks import LATE_SECONDS, HookSweeper
from shared.db import agents
from shared.db.agents import Agent
from shared.db.engine import Database
from shared.ids import new_id, new_run_id, new_thread_id
from shared.keys import ThreadKeys
from shared.tenant import Tenant
from shared.types import AGENT_HOOKS
from shared.workers.registry import WorkerRegistry
from tests.workflow.support import outside

NOW = datetime(2026, 1, 2, tzinfo=UTC)


async def left(database: Database, *, seconds_ago: float, hooks: list[str] | None) -> Agent:
    thread, then = new_thread_id(), NOW - timedelta(seconds=seconds_ago)
    named = {"hook_thread": thread, "hook_run": new_run_id(thread), "hooks": hooks}
    async with database.begin() as c:
        return await agents.add(c, Agent(new_id(), "default", "k", "A", then, then, metadata={"m": 1}, **named))  # type: ignore[arg-type]


async def test_a_run_that_was_named_and_not_submitted_is_submitted_once(client: Redis, database: Database) -> None:
    agent = await left(database, seconds_ago=LATE_SECONDS + 1, hooks=["shutdown"])
    early = await left(database, seconds_ago=LATE_SECONDS - 1, hooks=["shutdown"])
    done = await left(database, seconds_ago=LATE_SECONDS + 1, hooks=None)
    out = outside(client)
    sweeper = HookSweeper(database, out, WorkerRegistry(client))
    for _ in range(2):
        await sweeper.tick(NOW)
    run = await out.store.run(agent.hook_run or "")
    assert run is not None
    assert run.input is not None
    assert (run.runnable_id, run.input["input"]["hooks"]) == (AGENT_HOOKS, ["shutdown"])
    assert run.input["input"]["agent"]["metadata"] == {"m": 1}
    assert await out.store.run(early.hook_run or "") is None
    assert await out.store.run(done.hook_run or "") is None
    assert await client.lrange("rung", 0, -1) == [agent.hook_run]
    async with database.connect() as c:
        assert (await agents.existing(c, Tenant("default"), agent.id)).hooks is None


async def test_one_that_cannot_be_submitted_keeps_no_other_waiting(client: Redis, database: Database) -> None:
    broken = await left(database, seconds_ago=LATE_SECONDS + 2, hooks=["shutdown"])
    agent = await left(database, seconds_ago=LATE_SECONDS + 1, hooks=["shutdown"])
    await client.set(ThreadKeys(broken.hook_thread or "").metadata, "no hash")
    out = outside(client)
    await HookSweeper(database, out, WorkerRegistry(client)).tick(NOW)
    assert await out.store.run(agent.hook_run or "") is not None


async def test_hooks_whose_thread_was_deleted_are_called_in_another(client: Redis, database: Database) -> None:
    agent = await left(database, seconds_ago=LATE_SECONDS + 1, hooks=["shutdown"])
    assert agent.hook_thread
    await client.set(ThreadKeys(agent.hook_thread).gone(agent.hook_thread), 1)
    out = outside(client)
    await HookSweeper(database, out, WorkerRegistry(client)).tick(NOW)
    async with database.connect() as c:
        now = await agents.existing(c, Tenant("default"), agent.id)
    assert now.hooks is None
    assert now.hook_thread != agent.hook_thread
    run = await out.store.run(now.hook_run or "")
    assert run is not None
    assert (run.thread_id, (run.input or {})["input"]["hooks"]) == (now.hook_thread, ["shutdown"])
