"""Runs driven to their end in one process against a real Valkey, and killed at every point on the way."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import orjson
import pytest

from shared.config import AgentSettings, WorkerSettings
from shared.ids import new_run_id, new_thread_id
from shared.keys import thread_keys_of
from shared.redis import connect
from shared.threads.store import ThreadStore
from shared.threads.types import NewRun, NewThread, Run
from shared.types import RunStatus, StepStatus
from tests.workflow.support import Ledger, Playbook, a_runtime, turn
from workflow.llm.types import ModelRequest, ModelResponse, TextDelta, ThinkingDelta
from workflow.runner import Runner, Signals

BOOK = [
    turn("I look twice.", ("a", "look", "{}"), ("b", "look", "{}")),
    turn("Now I act.", ("c", "keyed", "{}"), ("d", "blind", "{}"), ("e", "keyed", "{}")),
    turn("All is done."),
]
ANSWER = "All is done."


class Died(BaseException):
    """What a killed process does: nothing more, least of all cleaning up."""


class Mortal:
    """Kills the process at the n-th point, before or after what happens there; then nothing works any more."""

    def __init__(self, dies_at: int) -> None:
        self.points = 0
        self.dies_at = dies_at

    def point(self) -> None:
        self.points += 1
        if self.points >= self.dies_at:
            raise Died


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[ThreadStore]:
    client = connect(redis_url, timeout_seconds=5, max_connections=10)
    yield ThreadStore(client, ring_seconds=5, patience_seconds=2)
    await client.aclose()


async def submit(store: ThreadStore, **parameters: Any) -> str:
    thread = await store.create_thread(NewThread(new_thread_id(), "w"))
    run_id = new_run_id(thread.id)
    await store.submit(NewRun(run_id, "w", {"task": "Do it."}, parameters), queued={})
    return run_id


async def ended(store: ThreadStore, run_id: str) -> Run:
    run = await store.run(run_id)
    assert run is not None
    return run


async def events_of(store: ThreadStore, run_id: str) -> list[dict[str, Any]]:
    return [
        orjson.loads(entry.event) for entry in await store.events_of(await ended(store, run_id), since=None, count=9999)
    ]


def answer_text(events: list[dict[str, Any]]) -> str:
    last = max(i for i, event in enumerate(events) if event["type"] == "agent.request")
    return "".join(event["data"]["text"] for event in events[last:] if event["type"] == "agent.delta")


async def test_a_run_does_its_steps_and_streams_its_text(store: ThreadStore) -> None:
    ledger = Ledger()
    run_id = await submit(store)
    assert await Runner(store, a_runtime(Playbook(BOOK), ledger)).execute(run_id, "w1", Signals()) is None
    run = await ended(store, run_id)
    assert (run.status, run.output) == (RunStatus.SUCCEEDED, ANSWER)
    assert run.usage["output_tokens"] == 15
    assert sorted(ledger.effects.values()) == [1] * 5
    events = await events_of(store, run_id)
    assert answer_text(events) == ANSWER
    assert events[-1]["data"]["cost"] == pytest.approx(0.003)
    assert [event["data"]["name"] for event in events if event["type"] == "todo"] == [
        "look", "look", "keyed", "blind", "keyed",
    ]  # fmt: skip
    roles = [message["role"] for message in await store.messages(run.thread_id)]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "tool", "tool", "tool", "assistant"]


async def test_killed_anywhere_it_repeats_no_step_and_no_effect_unseen(store: ThreadStore, redis_url: str) -> None:
    for dies_at in itertools.count(1):
        ledger = Ledger()
        run_id = await submit(store)
        survived = await live_and_die(redis_url, run_id, ledger, dies_at)
        if not survived:
            await store.expire(run_id, "w1", max_attempts=5)
            await Runner(store, a_runtime(Playbook(BOOK), ledger)).execute(run_id, "w2", Signals())
        await assert_whole(store, run_id, ledger)
        if survived:
            assert dies_at > 40, "too few points to mean anything"
            return


async def test_a_run_that_a_worker_claimed_but_cannot_read_goes_back_and_fails_in_the_end(
    store: ThreadStore, redis_url: str
) -> None:
    run_id = await submit(store)
    client = connect(redis_url, timeout_seconds=5, max_connections=2)
    await client.hset(thread_keys_of(run_id).journal(run_id), "k", "not an entry")
    runner = Runner(store, a_runtime(Playbook(BOOK), Ledger()))
    attempts = WorkerSettings().max_attempts
    for _ in range(attempts):
        assert (await ended(store, run_id)).status is RunStatus.PENDING
        await runner.execute(run_id, "w1", Signals())
    run = await ended(store, run_id)
    assert (run.status, run.epoch) == (RunStatus.FAILED, attempts)
    assert run.error is not None
    assert run.error["code"] == "no_progress"
    await client.aclose()


async def live_and_die(redis_url: str, run_id: str, ledger: Ledger, dies_at: int) -> bool:
    """An attempt in a process of its own, so to speak. Whether it lived to its end."""
    mortal = Mortal(dies_at)
    ledger.dies = mortal.point
    client = connect(redis_url, timeout_seconds=5, max_connections=10)
    store = ThreadStore(client, ring_seconds=5, patience_seconds=2)
    call = store._scripts.call

    async def mortal_call(name: str, keys: list[str], args: list[Any]) -> list[Any]:
        mortal.point()
        answer = await call(name, keys, args)
        mortal.point()
        return answer

    store._scripts.call = mortal_call  # type: ignore[method-assign]
    try:
        await Runner(store, a_runtime(Playbook(BOOK), ledger)).execute(run_id, "w1", Signals())
    except Died:
        return False
    finally:
        ledger.dies = lambda: None
        await client.aclose()
    return True


async def assert_whole(store: ThreadStore, run_id: str, ledger: Ledger) -> None:
    run = await ended(store, run_id)
    assert (run.status, run.output) == (RunStatus.SUCCEEDED, ANSWER)
    events = await events_of(store, run_id)
    assert answer_text(events) == ANSWER
    steps = await store.journal(run_id)
    assert [step.key for step in steps] == ["llm:1", "tool:a", "tool:b", "llm:2", "tool:c", "tool:d", "tool:e", "llm:3"]
    assert [step.number for step in steps] == list(range(1, 9))
    completed = [event["data"]["key"] for event in events if event["type"] == "step.completed"]
    assert sorted(completed) == sorted(step.key for step in steps)
    assert len(await store.messages(run.thread_id)) == 9
    for step in steps:
        count = ledger.effects[f"{run_id}/{step.key}"]
        if step.name == "keyed":
            assert count == 1
        elif step.name == "blind":
            assert count == 1 or (count == 0 and step.status is StepStatus.UNKNOWN)
        elif step.name == "look":
            assert 1 <= count <= 2


class Silent:
    """A model that never answers. It has the other's name: a run keeps the model that it began with."""

    name = Playbook.name
    context_tokens = 1000
    deployment = None

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ThinkingDelta | ModelResponse, None]:
        yield TextDelta("Hm.")
        await asyncio.Event().wait()


async def started(store: ThreadStore, run_id: str) -> None:
    async with asyncio.timeout(5):
        while not any(event["type"] == "agent.delta" for event in await events_of(store, run_id)):
            await asyncio.sleep(0.01)


async def test_a_drain_gives_a_run_back_and_another_worker_ends_it(store: ThreadStore) -> None:
    run_id = await submit(store)
    signals = Signals()
    task = asyncio.create_task(Runner(store, a_runtime(Silent())).execute(run_id, "w1", signals))
    await started(store, run_id)
    signals.draining.set()
    signals.out_of_time.set()
    assert await task == run_id
    assert (await ended(store, run_id)).status is RunStatus.PENDING
    await Runner(store, a_runtime(Playbook([turn(ANSWER)]))).execute(run_id, "w2", Signals())
    types = [event["type"] for event in await events_of(store, run_id)]
    assert types.index("run.interrupted") < types.index("run.resumed")
    assert answer_text(await events_of(store, run_id)) == ANSWER


async def test_a_canceled_run_ends_canceled_and_the_next_one_follows(store: ThreadStore) -> None:
    run_id = await submit(store)
    following = new_run_id(run_id.partition(".")[0])
    await store.submit(NewRun(following, "w", {"task": "Next."}), queued={})
    runner = Runner(store, a_runtime(Silent()))
    task = asyncio.create_task(runner.execute(run_id, "w1", Signals()))
    await started(store, run_id)
    await store.cancel(run_id, reason="test")
    runner.cancel(run_id)
    assert await task == following
    assert (await ended(store, run_id)).status is RunStatus.CANCELED


async def test_a_worker_that_lost_its_lease_drops_its_runs_and_writes_nothing(store: ThreadStore) -> None:
    run_id = await submit(store)
    runner = Runner(store, a_runtime(Silent()))
    task = asyncio.create_task(runner.execute(run_id, "w1", Signals()))
    await started(store, run_id)
    before = await events_of(store, run_id)
    runner.drop("w1")
    assert await task is None
    assert await events_of(store, run_id) == before


@pytest.mark.parametrize(
    ("parameters", "code"),
    [({"max_turns": 2}, "turn_limit"), ({"max_cost": 0.002}, "cost_limit"), ({"max_seconds": 0.05}, "time_limit")],
)
async def test_a_limit_ends_a_run_and_says_which(store: ThreadStore, parameters: dict[str, Any], code: str) -> None:
    run_id = await submit(store, **parameters)
    model = Silent() if code == "time_limit" else Playbook(BOOK)
    await Runner(store, a_runtime(model)).execute(run_id, "w1", Signals())
    run = await ended(store, run_id)
    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert run.error["code"] == code


async def test_bad_tool_calls_are_answered_to_the_model_and_the_run_goes_on(store: ThreadStore) -> None:
    book = [turn("", ("a", "no_such_tool", "{}"), ("b", "keyed", '{"x": 1}'), ("c", "keyed", "{")), turn(ANSWER)]
    run_id = await submit(store)
    await Runner(store, a_runtime(Playbook(book))).execute(run_id, "w1", Signals())
    assert (await ended(store, run_id)).output == ANSWER
    tools = [event["data"] for event in await events_of(store, run_id) if event["type"] == "tool.response"]
    assert [tool["ok"] for tool in tools] == [False] * 3


async def test_calls_that_a_provider_numbers_from_zero_in_every_turn_are_told_apart(store: ThreadStore) -> None:
    ledger = Ledger()
    book = [turn("", ("call_0", "keyed", "{}")), turn("", ("call_0", "keyed", "{}"), ("", "keyed", "{}")), turn(ANSWER)]
    run_id = await submit(store)
    await Runner(store, a_runtime(Playbook(book), ledger)).execute(run_id, "w1", Signals())
    assert (await ended(store, run_id)).output == ANSWER
    assert sorted(ledger.effects.values()) == [1, 1, 1]


async def test_text_is_coalesced_but_whole_with_any_interval(store: ThreadStore) -> None:
    text = " ".join(f"word{i}" for i in range(500))
    for coalesce_ms in (0, 30):
        run_id = await submit(store)
        runtime = a_runtime(Playbook([turn(text)]), agent=AgentSettings(coalesce_ms=coalesce_ms))
        await Runner(store, runtime).execute(run_id, "w1", Signals())
        events = await events_of(store, run_id)
        assert answer_text(events) == text
        assert sum(event["type"] == "agent.delta" for event in events) < 50
