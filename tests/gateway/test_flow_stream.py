"""The legacy stream, which is named by a flow and its input."""

import asyncio
from pathlib import Path

import pytest

from shared import keys
from shared.db import names
from shared.ids import new_thread_id
from tests.gateway.support import BRIEF, Gateway, events_in, finish, frames_of, ids_in, serving, settings_for

PAIR = {"flowUuid": "flow-1", "flowInputUuid": "input 1}/é"}
QUERY = "flowUuid=flow-1&flowInputUuid=input%201%7D%2F%C3%A9"


async def opened(gateway: Gateway, **more: str) -> str:
    answer = await gateway.client.post("/api/agent/initiate", json={**PAIR, **more})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["thread_id"])


@pytest.mark.parametrize("prefix", ["", "/api", "/api/v1"])
async def test_the_name_stands_for_the_threads_stream(gateway: Gateway, prefix: str) -> None:
    thread_id = await opened(gateway)
    run_id = await gateway.finished_run(thread_id)
    whole = events_in(await gateway.body_of(f"/api/agent/{thread_id}/stream?run_id={run_id}"))
    count = len(ids_in(whole))
    async with gateway.stream(f"{prefix}/agent/event-stream?{QUERY}") as stream:
        assert stream.status == 200
        assert b"".join(frame.raw for frame in await stream.frames(count)) == whole
    async with gateway.stream(f"{prefix}/agent/event-stream?{QUERY}&last_id={ids_in(whole)[2]}") as stream:
        assert [frame.id for frame in await stream.frames(count - 3)] == ids_in(whole)[3:]


async def test_an_unknown_pair_waits_until_a_thread_is_opened_with_it(gateway: Gateway) -> None:
    async with gateway.stream(f"/agent/event-stream?{QUERY}") as stream:
        [waiting] = await stream.frames(1)
        assert waiting.data == {"type": "waiting", **PAIR}
        thread_id = await opened(gateway)
        attempt = await gateway.attempt(await gateway.execute(thread_id))
        await finish(attempt)
        assert [frame.data["type"] for frame in await stream.frames(3)] == [
            "run.queued",
            "run.started",
            "run.completed",
        ]


async def test_a_pair_that_nobody_opens_ends_with_408_as_any_silent_stream(redis_url: str, tmp_path: Path) -> None:
    async with serving(settings_for(redis_url, tmp_path, stream=BRIEF)) as gateway:
        frames = frames_of(await gateway.body_of(f"/agent/event-stream?{QUERY}"))
        assert [frames[0].event, frames[-1].event] == ["waiting", "error"]
        assert frames[-1].data["status"] == 408


@pytest.mark.parametrize(
    "query",
    ["", "flowUuid=x", "flowInputUuid=x", "flowUuid=&flowInputUuid=x", "flowUuid=x&flowInputUuid=%20%09"],
)
async def test_a_parameter_that_is_missing_or_blank_is_400(gateway: Gateway, query: str) -> None:
    for path in ("/agent/event-stream", "/api/agent/event-stream"):
        answer = await gateway.client.get(f"{path}?{query}")
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["place"].startswith("query.flow")


async def test_a_pair_has_one_thread(gateway: Gateway) -> None:
    thread_id = await opened(gateway)
    again = await gateway.client.post("/api/agent/initiate", json=PAIR)
    assert again.status_code == 409
    assert thread_id in again.json()["detail"]
    half = await gateway.client.post("/api/agent/initiate", json={"flowUuid": "x"})
    assert half.status_code == 400


async def test_a_request_that_is_sent_again_gets_the_same_thread(gateway: Gateway) -> None:
    async def initiate() -> str:
        answer = await gateway.client.post("/api/agent/initiate", json=PAIR, headers={"Idempotency-Key": "k"})
        return str(answer.json()["thread_id"])

    assert len(set(await asyncio.gather(*(initiate() for _ in range(20))))) == 1


async def test_a_thread_that_was_named_but_never_made_is_made_by_the_next_who_asks(gateway: Gateway) -> None:
    """Its gateway died between the two."""
    named = new_thread_id()
    async with gateway.app.state.services.db.begin() as c:
        await names.claim(c, keys.flow("default", *PAIR.values()), named)
    assert await opened(gateway) == named


async def test_the_same_pair_of_another_workspace_is_another_name(gateway: Gateway) -> None:
    await gateway.redis.set(keys.flow("theirs", *PAIR.values()), await gateway.thread())
    async with gateway.stream(f"/agent/event-stream?{QUERY}") as stream:
        assert (await stream.frames(1))[0].event == "waiting"
