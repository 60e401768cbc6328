"""A Redis that is nearly full takes no new work, and lets what runs finish."""

from collections.abc import AsyncIterator

import pytest

from gateway import room
from tests.gateway.support import Gateway, finish


@pytest.fixture
async def crowded(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    """Its Redis uses more than 80 % of what it may."""
    monkeypatch.setattr(room, "READ_AGAIN_SECONDS", 0.0)
    yield gateway
    await gateway.redis.config_set("maxmemory", 0)


async def crowd(gateway: Gateway, part: float) -> None:
    used = (await gateway.redis.info("memory"))["used_memory"]
    await gateway.redis.config_set("maxmemory", int(used / part))


async def test_new_work_is_refused_and_what_runs_can_finish(crowded: Gateway) -> None:
    thread_id = await crowded.thread()
    run_id = await crowded.execute(thread_id)
    attempt = await crowded.attempt(run_id)
    await crowd(crowded, 0.85)
    for path, body in {
        "agent/initiate": {},
        f"agent/{thread_id}/execute": {"task": "more"},
        f"agent/{thread_id}/fork": {},
        "runs": {"runnable_type": "function", "runnable_id": "f"},
        f"runs/{run_id}/retry": {},
        f"runs/{run_id}/fork": {"step": 1},
        "events": {"name": "e", "payload": 1},
    }.items():
        refused = await crowded.client.post(f"/api/{path}", json=body)
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable"), path
        assert "memory" in refused.json()["detail"]
        assert int(refused.headers["Retry-After"]) > 0
    await finish(attempt)
    assert (await crowded.client.get(f"/api/runs/{run_id}")).json()["status"] == "succeeded"
    await crowd(crowded, 0.5)
    await crowded.execute(thread_id)


async def test_who_has_no_key_hears_nothing_of_the_memory(crowded: Gateway) -> None:
    await crowd(crowded, 0.85)
    refused = await crowded.client.post("/api/agent/initiate", headers={"Authorization": "Bearer nobody"})
    assert refused.status_code == 401
