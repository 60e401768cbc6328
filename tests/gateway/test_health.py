"""What the health endpoints tell, and to whom."""

import time

import httpx

from shared import keys
from shared.queue import QUEUE
from tests.gateway.support import Gateway


async def test_health_needs_no_key_and_says_what_is_missing(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}") as client:
        for path in ("/health", "/health/live", "/health/ready", "/"):
            assert (await client.get(path)).status_code == 200
        report = (await client.get("/health")).json()
    assert (report["status"], report["redis"]["status"]) == ("degraded", "ok")
    assert report["workers"] == {"status": "unavailable", "alive": 0}
    assert report["config"] == {"status": "ok", "env": "local", "auth": "keys"}


async def test_health_does_not_count_a_worker_that_died_and_that_nobody_has_buried(gateway: Gateway) -> None:
    await gateway.redis.zadd(keys.WORKERS, {"worker-1": (time.time() - 1) * 1000})
    report = (await gateway.client.get("/health")).json()
    assert (report["status"], report["workers"]) == ("degraded", {"status": "unavailable", "alive": 0})


async def test_health_is_ok_with_a_worker_and_counts_what_waits_for_it(gateway: Gateway) -> None:
    await gateway.redis.zadd(keys.WORKERS, {"worker-1": time.time() * 1000 + 60_000})
    await gateway.redis.rpush(QUEUE, "one", "two")
    report = (await gateway.client.get("/health")).json()
    assert (report["status"], report["workers"]["alive"], report["queue"]["depth"]) == ("ok", 1, 2)
