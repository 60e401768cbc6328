"""Those who watch an agent are told when its runs begin and end, and no run is held up by that."""

import asyncio
from typing import Any

import orjson
from redis.asyncio import Redis

from shared import keys
from shared.channels import Channels
from shared.config import StreamSettings
from shared.ids import new_run_id, new_thread_id
from shared.redis import connect
from shared.threads.types import NewRun, NewThread, Run
from shared.types import RunStatus
from tests.support.ports import free_port
from tests.workflow.support import Playbook, a_runtime, outside, turn
from workflow.activity import MAX_UNTOLD, Activity
from workflow.runner import Runner, Signals


async def told(client: Redis, count: int) -> list[dict[str, Any]]:
    """So many events, as soon as they are there: they are published beside the run."""
    async with asyncio.timeout(5):
        while await client.xlen(keys.channel("w")) < count:
            await asyncio.sleep(0.01)
    found: Any = await client.xrange(keys.channel("w"))
    return [orjson.loads(fields["e"]) for _, fields in found]


async def submit(client: Redis, agent: str | None, **parameters: Any) -> str:
    store = outside(client).store
    kind = {"definition": "chat", "version": 1, "prompt": None, "sandbox": False, "parameters": {}}
    definition = {"agent_id": agent, **kind}
    thread = await store.create_thread(NewThread(new_thread_id(), "w"))
    run_id = new_run_id(thread.id)
    await store.submit(NewRun(run_id, "w", {"task": "Do it."}, parameters, definition=definition), queued={})
    return run_id


async def run_of(client: Redis, run_id: str) -> Run:
    run = await outside(client).store.run(run_id)
    assert run is not None
    return run


async def test_an_agents_run_is_told_of_when_it_begins_and_when_it_ends(client: Redis) -> None:
    for number, (status, turns) in enumerate({"succeeded": 5, "failed": 1}.items()):
        run_id = await submit(client, "agent-1", max_turns=turns)
        book = Playbook([turn("Looking.", ("a", "look", "{}")), turn("Done.")])
        await Runner(outside(client), a_runtime(book, client=client)).execute(run_id, "w1", Signals())
        first, last = (await told(client, 2 * number + 2))[-2:]
        thread_id = run_id.partition(".")[0]
        assert (first["type"], first["agent_id"], first["workspace_id"]) == ("agent_activity", "agent-1", "w")
        assert first["data"] == {"run_id": run_id, "thread_id": thread_id, "status": "running", "attempt": 1}
        assert last["data"] == {**first["data"], "status": status}


async def test_a_run_of_no_agent_is_told_to_nobody(client: Redis) -> None:
    run_id = await submit(client, None)
    runner = Runner(outside(client), a_runtime(Playbook([turn("done")]), client=client))
    await runner.execute(run_id, "w1", Signals())
    await runner.close()
    assert not await client.exists(keys.channel("w"))


async def test_with_a_redis_that_is_away_it_neither_waits_nor_piles_up(client: Redis) -> None:
    run = await run_of(client, await submit(client, "agent-1"))
    gone = connect(f"redis://127.0.0.1:{free_port()}/0", timeout_seconds=1, max_connections=10)
    activity = Activity(Channels(gone, StreamSettings(), patience_seconds=0.1))
    for _ in range(MAX_UNTOLD + 10):
        activity.tell(run, RunStatus.RUNNING)
    assert len(activity._untold) == MAX_UNTOLD
    async with asyncio.timeout(10):
        await activity.close()
    await gone.aclose()
