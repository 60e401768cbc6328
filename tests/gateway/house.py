"""A gateway beside archivers that work when they are told to."""

from dataclasses import dataclass
from typing import Any

from modem.archive import Archiver
from shared.ids import SHARDS
from shared.threads.attempt import Change
from shared.threads.steps import StepRecord
from shared.threads.types import NewEvent
from shared.types import RunStatus, StepStatus
from tests.gateway.support import Gateway, delta


@dataclass
class House:
    gateway: Gateway
    archiver: Archiver
    evictor: Archiver

    async def archive(self) -> None:
        await self.archiver.tick(range(SHARDS))

    async def evict(self) -> None:
        await self.evictor.tick(range(SHARDS))
        assert [key async for key in self.gateway.redis.scan_iter("thread:*")] == []

    async def clean(self) -> int:
        """Deletes what nobody names any more; how many blobs that was."""
        redis, payloads = self.gateway.redis, self.gateway.store.payloads
        names = [name async for name in redis.scan_iter("timers:*")]
        timers = [str(timer) for name in names for timer in await redis.zrange(name, 0, -1)]
        gone = [timer for timer in timers if timer.startswith("gone|")]
        for timer in gone:
            await payloads.clean(timer)
        return len(gone)

    async def get(self, path: str) -> Any:
        answer = await self.gateway.client.get(f"/api{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def run(self, thread_id: str, size: int = 1) -> str:
        run_id = await self.gateway.execute(thread_id, "x" * size)
        attempt = await self.gateway.attempt(run_id)
        for number in range(1, 4):
            step = StepRecord(f"k{number}", number, "k", "t", StepStatus.SUCCEEDED, "h", result="r" * size)
            message = {"role": "assistant", "content": str(number)}
            await attempt.emit([delta(f"{number}")])
            await attempt.commit(Change([step], [message], [NewEvent("step.completed", {"key": step.key}, number)]))
        await attempt.end(RunStatus.SUCCEEDED, {"output": "o"}, {"output": "o" * size})
        return run_id
