"""Runs as the gateway leaves them, for tests of what happens to them before a worker has them."""

import secrets

from redis.asyncio import Redis

from shared.ids import new_run_id, new_thread_id
from shared.threads.attempt import Attempt
from shared.threads.store import ThreadStore
from shared.threads.types import NewRun, NewThread
from shared.types import RunStatus


class Tenant:
    """A workspace that submits runs, each in a thread of its own."""

    def __init__(self, client: Redis, workspace: str = "acme") -> None:
        self.workspace = workspace
        self.store = ThreadStore(client, ring_seconds=5, patience_seconds=2)

    async def pending(self, agent: str | None = None, **parameters: str) -> str:
        """Each is younger than the one before, in milliseconds of Redis. `agent`: whose run it is."""
        last = await self.store.now_ms()
        while await self.store.now_ms() == last:
            pass
        thread_id = new_thread_id()
        await self.store.create_thread(NewThread(thread_id, self.workspace))
        definition = {"agent_id": agent} if agent else None
        run = NewRun(new_run_id(thread_id), self.workspace, {"task": "x"}, parameters, definition=definition)
        await self.store.submit(run, queued={})
        return run.id

    async def running(self, run_id: str) -> Attempt:
        attempt = await self.store.claim(run_id, "w1", secrets.token_hex(4))
        assert attempt is not None
        return attempt

    async def ended(self, run_id: str) -> None:
        await (await self.running(run_id)).end(RunStatus.SUCCEEDED, {"output": ""}, {})
