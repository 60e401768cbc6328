"""What the health endpoints tell, and to whom."""

import time
from pathlib import Path

import httpx
from pydantic import SecretStr

from shared import keys
from shared.config import DatabaseSettings
from shared.queue import QUEUE
from tests.gateway.support import KEY, Gateway, serving, settings_for


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


async def test_without_the_database_it_is_not_ready_but_alive(redis_url: str, tmp_path: Path) -> None:
    settings = settings_for(
        redis_url, tmp_path, database=DatabaseSettings(url=SecretStr(f"sqlite+aiosqlite:///{tmp_path}/none/of/it.db"))
    )
    async with serving(settings) as gateway:
        ready = await gateway.client.get("/health/ready")
        assert (ready.status_code, ready.json()["code"]) == (503, "unavailable")
        assert "database" in ready.json()["detail"]
        whole = await gateway.client.get("/health")
        assert (whole.status_code, whole.json()["status"]) == (503, "unavailable")
        assert (whole.json()["redis"]["status"], whole.json()["database"]["status"]) == ("ok", "unavailable")
        assert (await gateway.client.get("/health/live")).status_code == 200


async def test_details_need_a_key_and_hold_no_secret(gateway: Gateway, redis_url: str) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}") as client:
        assert (await client.get("/health/status")).status_code == 401
    answer = await gateway.client.get("/health/status")
    assert answer.status_code == 200
    details = answer.json()
    assert details["queues"] == {"high": 0, "normal": 0, "low": 0}
    assert details["worker_names"] == []
    assert details["redis_details"]["used_bytes"] > 0
    assert details["config_details"]["database"] == "sqlite"
    assert KEY not in answer.text
    assert "redis://" not in answer.text
