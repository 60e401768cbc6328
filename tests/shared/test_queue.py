import json
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from shared.queue import EXECUTE_RUN, QUEUE, RunQueue, celery_app
from tests.support.ports import free_port


@pytest.fixture
def queue(redis_url: str) -> Iterator[RunQueue]:
    queue = RunQueue(celery_app(redis_url))
    yield queue
    queue.close()


async def test_ringing_sends_the_runs_id_and_nothing_else(queue: RunQueue, redis_client: Redis) -> None:
    await queue.ring("a-run")
    await queue.ring(None)
    [message] = await redis_client.lrange(QUEUE, 0, -1)
    assert json.loads(message)["headers"]["task"] == EXECUTE_RUN
    assert json.loads(message)["headers"]["argsrepr"] == "['a-run']"


async def test_warming_up_sends_nothing(queue: RunQueue, redis_client: Redis) -> None:
    await queue.warm_up()
    assert await redis_client.llen(QUEUE) == 0


async def test_a_broker_that_is_away_raises_nothing(caplog: pytest.LogCaptureFixture) -> None:
    queue = RunQueue(celery_app(f"redis://127.0.0.1:{free_port()}/0"))
    await queue.warm_up()
    await queue.ring("a-run")
    queue.close()
    assert "a-run" in caplog.text
