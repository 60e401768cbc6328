"""Who runs, as the workers themselves tell."""

import asyncio

from modem.lease import Lease
from shared import keys
from shared.config import RedisSettings, WorkerSettings
from shared.types import Scope
from tests.gateway.support import Gateway
from tests.gateway.tenants import client_of, new_key


async def test_workers_are_listed_with_what_they_tell_and_the_runs_in_their_hands(
    gateway: Gateway, redis_url: str
) -> None:
    lease = Lease(WorkerSettings(), RedisSettings(url=redis_url), "worker-1")
    await asyncio.to_thread(lease.start, lambda _: None, ["f"], {"version": "9.9", "catalogue": "abc"})
    try:
        await gateway.attempt(await gateway.execute(await gateway.thread()), str(lease.name))
        answer = (await gateway.client.get("/api/workers")).json()
    finally:
        await asyncio.to_thread(lease.stop)
    [worker] = answer["items"]
    assert (worker["name"], worker["label"], worker["alive"], worker["runs"]) == (lease.name, "worker-1", True, 1)
    assert (worker["version"], worker["catalogue"], worker["metrics_port"]) == ("9.9", "abc", None)
    assert worker["since"].endswith("Z")
    assert worker["pid"] > 0
    assert answer["next_cursor"] is None


async def test_workers_and_the_state_of_the_whole_are_for_the_operator_alone(gateway: Gateway) -> None:
    tenant = await new_key(gateway, "default", scopes=list(Scope))
    for path in ("/api/workers", "/health/status"):
        assert (await gateway.client.get(path)).status_code == 200
        async with client_of(gateway, tenant) as client:
            refused = await client.get(path)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert "a key of the settings" in refused.json()["detail"]


async def test_a_worker_of_an_older_release_and_a_dead_one_are_listed_too(gateway: Gateway) -> None:
    await gateway.redis.zadd(keys.WORKERS, {"old-1": 1})
    await gateway.redis.hset(keys.worker("old-1"), mapping={"label": "old", "host": "h", "pid": 7, "functions": "[]"})
    [worker] = (await gateway.client.get("/api/workers")).json()["items"]
    assert (worker["label"], worker["alive"], worker["since"], worker["version"]) == ("old", False, None, None)


async def test_a_list_of_workers_has_pages(gateway: Gateway) -> None:
    for number in range(3):
        await gateway.redis.zadd(keys.WORKERS, {f"w-{number}": 1})
        await gateway.redis.hset(keys.worker(f"w-{number}"), mapping={"label": "w", "host": "h", "pid": 7})
    first = (await gateway.client.get("/api/workers?limit=2")).json()
    rest = (await gateway.client.get("/api/workers", params={"cursor": first["next_cursor"]})).json()
    assert [worker["name"] for worker in first["items"] + rest["items"]] == ["w-0", "w-1", "w-2"]
    assert rest["next_cursor"] is None
