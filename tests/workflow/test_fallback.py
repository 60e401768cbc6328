"""A run whose model is down: its calls go through the pool, and its stream says what became of them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import orjson
import pytest
from redis.asyncio import Redis

from modem.agenda import Agenda
from shared.config import LlmSettings, Settings
from shared.errors import AppError, ErrorCode
from shared.events.outside import Outside
from shared.ids import SHARDS, new_run_id, new_thread_id
from shared.redis import connect
from shared.threads import again
from shared.threads.types import NewRun, NewThread, Run
from shared.types import RunStatus
from tests.workflow.support import a_runtime, outside, turn
from workflow.llm.demo import DEMO
from workflow.llm.scripted import BrokenOff, ScriptedModel
from workflow.llm.types import (
    ModelError,
    ModelRequest,
    ModelResponse,
    ModelsUnavailable,
    TextDelta,
    ThinkingDelta,
)
from workflow.runner import Runner, Signals
from workflow.runtime import open_runtime

DOWN = ModelError(ErrorCode.MODEL_UNAVAILABLE, "The provider is down.", retryable=True, outage=True)


@pytest.fixture
async def out(redis_url: str) -> AsyncIterator[Outside]:
    client = connect(redis_url, timeout_seconds=5, max_connections=10)
    yield outside(client)
    await client.aclose()


async def test_a_run_goes_on_with_the_fallback_and_its_stream_says_so(out: Outside) -> None:
    first = ScriptedModel([BrokenOff(DOWN, "Half an "), DOWN], name="first")
    second = ScriptedModel([turn("The whole answer.")], name="second")
    thread = await out.store.create_thread(NewThread(new_thread_id(), "w"))
    run_id = new_run_id(thread.id)
    await out.store.submit(NewRun(run_id, "w", {"task": "Do it."}, {}), queued={})
    runtime = replace(a_runtime(first), fallbacks=[first, second])
    await Runner(out, runtime).execute(run_id, "w1", Signals())
    run = await out.store.run(run_id)
    assert run is not None
    assert (run.status, run.output) == (RunStatus.SUCCEEDED, "The whole answer.")
    entries = await out.store.events_of(run, since=None, count=999)
    events = [orjson.loads(entry.event) for entry in entries]
    asked = [event["data"] for event in events if event["type"] == "agent.request"]
    assert [(data["model"], data["try"], data.get("cause")) for data in asked] == [
        ("first", 1, None),
        ("first", 2, DOWN.detail),
        ("second", 3, DOWN.detail),
    ]
    assert second.requests[0] == first.requests[0], "and it is asked the same"
    assert second.requests[0].cache_key == thread.id


class Away(ScriptedModel):
    """May not be asked at first, as when its breaker is open."""

    def __init__(self, out: Outside, times: int, *answers: str) -> None:
        super().__init__([turn(answer) for answer in ("At last.", *answers)], name="away")
        self.out = out
        self.times = times

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ThinkingDelta | ModelResponse, None]:
        if self.times:
            self.times -= 1
            at = await self.out.store.now_ms() / 1000 + 0.05
            raise ModelsUnavailable("The provider is down.", retry_at=at, retry_after=0.05)
        async for item in super().stream(request):
            yield item


async def test_while_no_model_may_be_asked_the_run_waits_without_a_worker(out: Outside) -> None:
    model = Away(out, times=2)
    thread = await out.store.create_thread(NewThread(new_thread_id(), "w"))
    run_id = new_run_id(thread.id)
    await out.store.submit(NewRun(run_id, "w", {"task": "Do it."}, {}), queued={})
    waited = 0
    async with asyncio.timeout(10):
        while (run := await out.store.run(run_id)) and not run.status.terminal:
            await Runner(out, a_runtime(model)).execute(run_id, "w1", Signals())
            run = await out.store.run(run_id)
            assert run is not None
            waited += run.status is RunStatus.WAITING
            await asyncio.sleep(0.06)
            await Agenda(out).tick(range(SHARDS))
    assert run is not None
    assert (run.status, run.output, waited) == (RunStatus.SUCCEEDED, "At last.", 2)
    steps = await out.store.journal(run_id)
    assert [(step.number, step.key) for step in steps] == [(1, "llm:1"), (2, "llm:1:held:1"), (3, "llm:1:held:2")]
    resumed = [orjson.loads(e.event) for e in await out.store.events(thread.id) if e.type == "run.resumed"]
    assert [event["data"]["from_step"] for event in resumed] == [f"{run_id}.1"] * 2


async def held_up(out: Outside, model: Away) -> str:
    """A run that waits until its model may be asked."""
    thread = await out.store.create_thread(NewThread(new_thread_id(), "w"))
    run_id = new_run_id(thread.id)
    await out.store.submit(NewRun(run_id, "w", {"task": "Do it."}, {}), queued={})
    await Runner(out, a_runtime(model)).execute(run_id, "w1", Signals())
    run = await out.store.run(run_id)
    assert run is not None
    assert run.status is RunStatus.WAITING
    return run_id


async def finished(out: Outside, model: Away, run_id: str) -> Run:
    async with asyncio.timeout(10):
        while (run := await out.store.run(run_id)) and not run.status.terminal:
            await Agenda(out).tick(range(SHARDS))
            await Runner(out, a_runtime(model)).execute(run_id, "w1", Signals())
    assert run is not None
    return run


async def test_what_a_run_is_told_while_its_model_is_away_is_read_in_the_next_turn(out: Outside) -> None:
    model = Away(out, 1, "Heard.")
    run_id = await held_up(out, model)
    await out.store.inject(run_id, {"role": "user", "content": "And this.", "id": "m1"})
    run = await finished(out, model, run_id)
    assert (run.error, run.output) == (None, "Heard.")
    assert [message["content"] for message in model.requests[-1].messages[1:]] == ["Do it.", "At last.", "And this."]


async def test_a_run_canceled_while_its_model_is_away_can_be_retried(out: Outside) -> None:
    model = Away(out, times=1)
    run_id = await held_up(out, model)
    await out.store.cancel(run_id, reason="test")
    canceled = await finished(out, model, run_id)
    assert canceled.status is RunStatus.CANCELED
    new_id = new_run_id(canceled.thread_id)
    await again.retry(out.store, canceled, new_id, key_id=None)
    run = await finished(out, model, new_id)
    assert (run.error, run.output) == (None, "At last.")


async def test_a_fallback_of_no_provider_is_found_out_when_the_worker_starts(client: Redis) -> None:
    settings = Settings(llm=LlmSettings(model=DEMO, fallback_models=["llama-9000"]))
    with pytest.raises(AppError, match="'llama-9000' names no provider") as caught:
        async with open_runtime(settings, client):
            pass
    assert caught.value.code is ErrorCode.INVALID_CONFIG
