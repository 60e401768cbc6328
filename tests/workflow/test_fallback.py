"""A run whose model is down: its calls go through the pool, and its stream says what became of them."""

from collections.abc import AsyncIterator
from dataclasses import replace

import orjson
import pytest
from redis.asyncio import Redis

from shared.config import LlmSettings, Settings
from shared.errors import AppError, ErrorCode
from shared.ids import new_run_id, new_thread_id
from shared.redis import connect
from shared.threads.store import ThreadStore
from shared.threads.types import NewRun, NewThread
from shared.types import RunStatus
from tests.workflow.support import a_runtime, turn
from workflow.llm.demo import DEMO
from workflow.llm.scripted import BrokenOff, ScriptedModel
from workflow.llm.types import ModelError
from workflow.runner import Runner, Signals
from workflow.runtime import open_runtime

DOWN = ModelError(ErrorCode.MODEL_UNAVAILABLE, "The provider is down.", retryable=True, outage=True)


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[ThreadStore]:
    client = connect(redis_url, timeout_seconds=5, max_connections=10)
    yield ThreadStore(client, ring_seconds=5, patience_seconds=2)
    await client.aclose()


async def test_a_run_goes_on_with_the_fallback_and_its_stream_says_so(store: ThreadStore) -> None:
    first = ScriptedModel([BrokenOff(DOWN, "Half an "), DOWN], name="first")
    second = ScriptedModel([turn("The whole answer.")], name="second")
    thread = await store.create_thread(NewThread(new_thread_id(), "w"))
    run_id = new_run_id(thread.id)
    await store.submit(NewRun(run_id, "w", {"task": "Do it."}, {}), queued={})
    runtime = replace(a_runtime(first), fallbacks=[first, second])
    await Runner(store, runtime).execute(run_id, "w1", Signals())
    run = await store.run(run_id)
    assert run is not None
    assert (run.status, run.output) == (RunStatus.SUCCEEDED, "The whole answer.")
    entries = await store.events_of(run, since=None, count=999)
    events = [orjson.loads(entry.event) for entry in entries]
    asked = [event["data"] for event in events if event["type"] == "agent.request"]
    assert [(data["model"], data["try"], data.get("cause")) for data in asked] == [
        ("first", 1, None),
        ("first", 2, DOWN.detail),
        ("second", 3, DOWN.detail),
    ]
    assert second.requests[0] == first.requests[0], "and it is asked the same"
    assert second.requests[0].cache_key == thread.id


async def test_a_fallback_of_no_provider_is_found_out_when_the_worker_starts() -> None:
    settings = Settings(llm=LlmSettings(model=DEMO, fallback_models=["llama-9000"]))
    with pytest.raises(AppError, match="'llama-9000' names no provider") as caught:
        async with open_runtime(settings, Redis()):
            pass
    assert caught.value.code is ErrorCode.INVALID_CONFIG
