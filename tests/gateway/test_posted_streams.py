"""`POST /runs` with `Accept: text/event-stream`: the run's events as source design 000 reads them."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from shared.config import StreamSettings
from shared.types import JSON
from tests.gateway.support import BOUND_SECONDS, BRIEF, Gateway, finish, serving, settings_for

RUN = {"runnable_type": "function", "runnable_id": "f", "input": 1}
STREAM = {"Accept": "text/event-stream"}


async def data(answer: httpx.Response) -> AsyncIterator[JSON]:
    async with asyncio.timeout(BOUND_SECONDS):
        async for line in answer.aiter_lines():
            assert not line.startswith("event:")
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


async def test_the_stream_ends_with_the_run_and_says_so(gateway: Gateway) -> None:
    async with gateway.client.stream("POST", "/runs", json=RUN, headers=STREAM) as answer:
        assert (answer.status_code, answer.headers["x-accel-buffering"]) == (200, "no")
        found = data(answer)
        queued = await anext(found)
        await finish(await gateway.attempt(queued["run_id"]), deltas=2)
        rest = [event async for event in found]
    assert [event.get("type") for event in rest[:-1]] == ["run.started", *["agent.delta"] * 2, "run.completed"]
    assert rest[-1] == {"event": "end"}


async def test_the_same_request_again_is_told_the_same_run_from_its_start(gateway: Gateway) -> None:
    headers = {**STREAM, "Idempotency-Key": "k"}
    begun = await gateway.client.post("/runs", json=RUN, headers={"Idempotency-Key": "k"})
    await finish(await gateway.attempt(begun.json()["run_id"]))
    assert begun.status_code == 201
    async with gateway.client.stream("POST", "/api/runs", json=RUN, headers=headers) as answer:
        events = [event async for event in data(answer)]
    assert {event["run_id"] for event in events[:-1]} == {begun.json()["run_id"]}
    assert (events[0]["type"], events[-1]) == ("run.queued", {"event": "end"})


async def test_a_stream_that_is_closed_before_the_runs_end_says_why_and_not_end(redis_url: str, tmp_path: Path) -> None:
    async with serving(settings_for(redis_url, tmp_path, stream=BRIEF)) as gateway:
        answer = await gateway.client.post("/runs", json=RUN, headers=STREAM)
    *_, last = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert (last["event"], last["status"], last["code"]) == ("error", 408, "stream_timeout")


async def test_it_counts_against_the_streams_that_a_key_may_hold_open(redis_url: str, tmp_path: Path) -> None:
    async with (
        serving(settings_for(redis_url, tmp_path, stream=StreamSettings(max_per_key=1))) as gateway,
        gateway.client.stream("POST", "/runs", json=RUN, headers=STREAM),
    ):
        assert (await gateway.client.post("/runs", json=RUN, headers=STREAM)).status_code == 429
        assert (await gateway.client.post("/runs", json=RUN)).status_code == 201


async def test_what_cannot_be_run_is_a_problem_and_no_stream(gateway: Gateway) -> None:
    wrong = await gateway.client.post("/runs", json={"runnable_type": "function"}, headers=STREAM)
    assert (wrong.status_code, wrong.headers["content-type"]) == (400, "application/problem+json")
