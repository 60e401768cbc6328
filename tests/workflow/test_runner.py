"""Runs driven to their end in one process against a real Valkey, and killed at every point on the way."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import orjson
import pytest

from shared.config import AgentSettings, WorkerSettings
from shared.errors import ErrorCode
from shared.events.outside import Outside
from shared.ids import new_run_id, new_thread_id
from shared.keys import thread_keys_of
from shared.redis import connect
from shared.threads.attempt import GoOn
from shared.threads.types import NewRun, NewThread, Run
from shared.types import Runnable, RunStatus, StepStatus
from tests.workflow.support import Ledger, Playbook, a_runtime, outside, turn
from workflow.llm.scripted import ScriptedModel
from workflow.llm.types import ModelError, ModelRequest, ModelResponse, TextDelta, ThinkingDelta
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
async def out(redis_url: str) -> AsyncIterator[Outside]:
    client = connect(redis_url, timeout_seconds=5, max_connections=10)
    yield outside(client)
    await client.aclose()


async def submit(out: Outside, **parameters: Any) -> str:
    thread = await out.store.create_thread(NewThread(new_thread_id(), "w"))
    run_id = new_run_id(thread.id)
    await out.store.submit(NewRun(run_id, "w", {"task": "Do it."}, parameters), queued={})
    return run_id


async def ended(out: Outside, run_id: str) -> Run:
    run = await out.store.run(run_id)
    assert run is not None
    return run


async def events_of(out: Outside, run_id: str) -> list[dict[str, Any]]:
    return [
        orjson.loads(entry.event)
        for entry in await out.store.events_of(await ended(out, run_id), since=None, count=9999)
    ]


def answer_text(events: list[dict[str, Any]]) -> str:
    last = max(i for i, event in enumerate(events) if event["type"] == "agent.request")
    return "".join(event["data"]["text"] for event in events[last:] if event["type"] == "agent.delta")


async def test_a_run_does_its_steps_and_streams_its_text(out: Outside) -> None:
    ledger = Ledger()
    run_id = await submit(out)
    assert await Runner(out, a_runtime(Playbook(BOOK), ledger)).execute(run_id, "w1", Signals()) is None
    run = await ended(out, run_id)
    assert (run.status, run.output) == (RunStatus.SUCCEEDED, ANSWER)
    assert run.usage["output_tokens"] == 15
    assert sorted(ledger.effects.values()) == [1] * 5
    events = await events_of(out, run_id)
    assert answer_text(events) == ANSWER
    assert events[-1]["data"]["cost"] == pytest.approx(0.003)
    assert [event["data"]["name"] for event in events if event["type"] == "todo"] == [
        "look", "look", "keyed", "blind", "keyed",
    ]  # fmt: skip
    roles = [message["role"] for message in await out.store.messages(run.thread_id)]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "tool", "tool", "tool", "assistant"]


async def test_killed_anywhere_it_repeats_no_step_and_no_effect_unseen(out: Outside, redis_url: str) -> None:
    for dies_at in itertools.count(1):
        ledger = Ledger()
        run_id = await submit(out)
        survived = await live_and_die(redis_url, run_id, ledger, dies_at)
        if not survived:
            await out.store.expire(run_id, "w1", max_attempts=5)
            await Runner(out, a_runtime(Playbook(BOOK), ledger)).execute(run_id, "w2", Signals())
        await assert_whole(out, run_id, ledger)
        if survived:
            assert dies_at > 40, "too few points to mean anything"
            return


async def test_a_run_that_a_worker_claimed_but_cannot_read_goes_back_and_fails_in_the_end(
    out: Outside, redis_url: str
) -> None:
    run_id = await submit(out)
    client = connect(redis_url, timeout_seconds=5, max_connections=2)
    await client.hset(thread_keys_of(run_id).journal(run_id), "k", "not an entry")
    runner = Runner(out, a_runtime(Playbook(BOOK), client=client))
    attempts = WorkerSettings().max_attempts
    for _ in range(attempts):
        assert (await ended(out, run_id)).status is RunStatus.PENDING
        await runner.execute(run_id, "w1", Signals())
    run = await ended(out, run_id)
    assert (run.status, run.epoch) == (RunStatus.FAILED, attempts)
    assert run.error is not None
    assert run.error["code"] == "no_progress"
    await client.aclose()


async def live_and_die(redis_url: str, run_id: str, ledger: Ledger, dies_at: int) -> bool:
    """An attempt in a process of its own, so to speak. Whether it lived to its end."""
    mortal = Mortal(dies_at)
    ledger.dies = mortal.point
    client = connect(redis_url, timeout_seconds=5, max_connections=10)
    out = outside(client)
    call = out.store._scripts.call

    async def mortal_call(name: str, keys: list[str], args: list[Any], **how: Any) -> Any:
        mortal.point()
        answer = await call(name, keys, args, **how)
        mortal.point()
        return answer

    out.store._scripts.call = mortal_call  # type: ignore[assignment, method-assign]
    try:
        await Runner(out, a_runtime(Playbook(BOOK), ledger)).execute(run_id, "w1", Signals())
    except Died:
        return False
    finally:
        ledger.dies = lambda: None
        await client.aclose()
    return True


async def assert_whole(out: Outside, run_id: str, ledger: Ledger) -> None:
    run = await ended(out, run_id)
    assert (run.status, run.output) == (RunStatus.SUCCEEDED, ANSWER)
    events = await events_of(out, run_id)
    assert answer_text(events) == ANSWER
    steps = await out.store.journal(run_id)
    assert [step.key for step in steps] == ["llm:1", "tool:a", "tool:b", "llm:2", "tool:c", "tool:d", "tool:e", "llm:3"]
    assert [step.number for step in steps] == list(range(1, 9))
    completed = [event["data"]["key"] for event in events if event["type"] == "step.completed"]
    assert sorted(completed) == sorted(step.key for step in steps)
    assert len(await out.store.messages(run.thread_id)) == 9
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


async def started(out: Outside, run_id: str) -> None:
    async with asyncio.timeout(5):
        while not any(event["type"] == "agent.delta" for event in await events_of(out, run_id)):
            await asyncio.sleep(0.01)


async def test_a_drain_gives_a_run_back_and_another_worker_ends_it(out: Outside) -> None:
    run_id = await submit(out)
    signals = Signals()
    task = asyncio.create_task(Runner(out, a_runtime(Silent())).execute(run_id, "w1", signals))
    await started(out, run_id)
    signals.draining.set()
    signals.out_of_time.set()
    assert await task == run_id
    assert (await ended(out, run_id)).status is RunStatus.PENDING
    await Runner(out, a_runtime(Playbook([turn(ANSWER)]))).execute(run_id, "w2", Signals())
    types = [event["type"] for event in await events_of(out, run_id)]
    assert types.index("run.interrupted") < types.index("run.resumed")
    assert answer_text(await events_of(out, run_id)) == ANSWER


async def test_a_canceled_run_ends_canceled_and_the_next_one_follows(out: Outside) -> None:
    run_id = await submit(out)
    following = new_run_id(run_id.partition(".")[0])
    await out.store.submit(NewRun(following, "w", {"task": "Next."}), queued={})
    runner = Runner(out, a_runtime(Silent()))
    task = asyncio.create_task(runner.execute(run_id, "w1", Signals()))
    await started(out, run_id)
    await out.store.cancel(run_id, reason="test")
    runner.cancel(run_id)
    assert await task == following
    assert (await ended(out, run_id)).status is RunStatus.CANCELED


async def test_a_worker_that_lost_its_lease_drops_its_runs_and_writes_nothing(out: Outside) -> None:
    run_id = await submit(out)
    runner = Runner(out, a_runtime(Silent()))
    task = asyncio.create_task(runner.execute(run_id, "w1", Signals()))
    await started(out, run_id)
    before = await events_of(out, run_id)
    runner.drop("w1")
    assert await task is None
    assert await events_of(out, run_id) == before


@pytest.mark.parametrize("kind", [Runnable.TEAM, Runnable.WORKFLOW])
async def test_what_a_worker_cannot_run_is_not_done_by_the_plain_agent(out: Outside, kind: Runnable) -> None:
    """A gateway may be of a newer release than its workers."""
    ledger, thread = Ledger(), await out.store.create_thread(NewThread(new_thread_id(), "w"))
    run_id = new_run_id(thread.id)
    await out.store.submit(NewRun(run_id, "w", {"task": "Do it."}, runnable_type=kind, runnable_id="x"), queued={})
    await Runner(out, a_runtime(Playbook(BOOK), ledger)).execute(run_id, "w1", Signals())
    run = await ended(out, run_id)
    assert (run.status, (run.error or {})["code"]) == (RunStatus.FAILED, ErrorCode.NOT_IMPLEMENTED)
    assert not ledger.effects


async def test_an_error_that_is_recorded_tells_no_secret(out: Outside) -> None:
    detail = "The provider wants another key (Incorrect API key provided: sk-proj-abcdefgh12345678)."
    run_id = await submit(out)
    model = ScriptedModel([ModelError(ErrorCode.MODEL_AUTH, detail)])
    await Runner(out, a_runtime(model)).execute(run_id, "w1", Signals())
    run = await ended(out, run_id)
    assert run.error is not None
    assert run.error["detail"] == detail.replace("proj-abcdefgh12345678", "****")
    [step] = await out.store.journal(run_id)
    told = [event["data"]["error"] for event in await events_of(out, run_id) if "error" in event["data"]]
    assert told == [step.error, run.error]
    assert "abcdefgh" not in str(step.error)


async def test_bad_tool_calls_are_answered_to_the_model_and_the_run_goes_on(out: Outside) -> None:
    book = [turn("", ("a", "no_such_tool", "{}"), ("b", "keyed", '{"x": 1}'), ("c", "keyed", "{")), turn(ANSWER)]
    run_id = await submit(out)
    await Runner(out, a_runtime(Playbook(book))).execute(run_id, "w1", Signals())
    assert (await ended(out, run_id)).output == ANSWER
    tools = [event["data"] for event in await events_of(out, run_id) if event["type"] == "tool.response"]
    assert [tool["ok"] for tool in tools] == [False] * 3


async def test_calls_that_a_provider_numbers_from_zero_in_every_turn_are_told_apart(out: Outside) -> None:
    ledger = Ledger()
    book = [turn("", ("call_0", "keyed", "{}")), turn("", ("call_0", "keyed", "{}"), ("", "keyed", "{}")), turn(ANSWER)]
    run_id = await submit(out)
    await Runner(out, a_runtime(Playbook(book), ledger)).execute(run_id, "w1", Signals())
    assert (await ended(out, run_id)).output == ANSWER
    assert sorted(ledger.effects.values()) == [1, 1, 1]


async def test_text_is_coalesced_but_whole_with_any_interval(out: Outside) -> None:
    text = " ".join(f"word{i}" for i in range(500))
    for coalesce_ms in (0, 30):
        run_id = await submit(out)
        runtime = a_runtime(Playbook([turn(text)]), agent=AgentSettings(coalesce_ms=coalesce_ms))
        await Runner(out, runtime).execute(run_id, "w1", Signals())
        events = await events_of(out, run_id)
        assert answer_text(events) == text
        assert sum(event["type"] == "agent.delta" for event in events) < 50


class Told(Playbook):
    """A model that is told something while it speaks, and keeps what it was asked."""

    def __init__(self, out: Outside, turns: list[ModelResponse], told: dict[int, str]) -> None:
        super().__init__(turns)
        self.out = out
        self.run_id = ""
        self.told = told
        self.asked: list[list[str]] = []

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ThinkingDelta | ModelResponse, None]:
        self.asked.append([m["content"] for m in request.messages if m["role"] == "user"])
        if text := self.told.pop(len(self.asked), None):
            assert await self.out.store.inject(self.run_id, {"role": "user", "content": text, "id": text})
        yield self.turns[len(self.asked) - 1]


async def test_a_message_for_a_running_agent_is_read_at_the_end_of_its_turn(out: Outside) -> None:
    book = [turn("I look.", ("a", "look", "{}")), turn("Done?"), turn("Done.")]
    model = Told(out, book, {1: "Look closer.", 2: "And now?"})
    model.run_id = await submit(out)
    await Runner(out, a_runtime(model)).execute(model.run_id, "w1", Signals())
    run = await ended(out, model.run_id)
    assert (run.status, run.output) == (RunStatus.SUCCEEDED, "Done.")
    assert model.asked == [["Do it."], ["Do it.", "Look closer."], ["Do it.", "Look closer.", "And now?"]]
    roles = [message["role"] for message in await out.store.messages(run.thread_id)]
    assert roles == ["user", "assistant", "tool", "user", "assistant", "user", "assistant"]


async def test_a_replay_sees_messages_where_they_were_read(out: Outside) -> None:
    book = [turn("I look.", ("a", "look", "{}")), turn("More.", ("b", "look", "{}")), turn("Done.")]
    model = Told(out, book, {1: "Look closer."})
    model.run_id = await submit(out)
    runner = Runner(out, a_runtime(model))
    third = Told(out, book, {})

    async def stop_at_the_third(request: ModelRequest) -> AsyncGenerator[Any, None]:
        if len(model.asked) == 2:
            runner.drop("w1")
            await asyncio.sleep(60)
        async for item in Told.stream(model, request):
            yield item

    model.stream = stop_at_the_third  # type: ignore[method-assign]
    await runner.execute(model.run_id, "w1", Signals())
    await out.store.expire(model.run_id, "w1", max_attempts=5)
    third.asked = [[], []]
    await Runner(out, a_runtime(third)).execute(model.run_id, "w2", Signals())
    assert (await ended(out, model.run_id)).status is RunStatus.SUCCEEDED
    assert third.asked[2] == ["Do it.", "Look closer."]
    keys = [step.key for step in await out.store.journal(model.run_id)]
    assert keys == ["llm:1", "tool:a", "inbox:2", "llm:2", "tool:b", "llm:3"]


async def test_of_the_messages_for_an_agent_that_failed_each_is_in_the_conversation_once(out: Outside) -> None:
    model = Told(out, [turn("I look.", ("a", "look", "{}"))], {1: "Look closer.", 2: "And now?"})
    model.run_id = await submit(out)
    await Runner(out, a_runtime(model)).execute(model.run_id, "w1", Signals())
    run = await ended(out, model.run_id)
    assert run.status is RunStatus.FAILED
    contents = [message["content"] for message in await out.store.messages(run.thread_id)]
    assert contents == ["Do it.", "I look.", "look done", "Look closer.", "And now?"]


async def test_a_message_that_comes_after_the_last_look_is_not_lost(out: Outside) -> None:
    model = Told(out, [turn("Done."), turn("Done again.")], {})
    model.run_id = await submit(out)
    attempt = await out.store.claim(model.run_id, "w1", "c")
    assert attempt is not None
    await out.store.inject(model.run_id, {"role": "user", "content": "Wait!", "id": "1"})
    with pytest.raises(GoOn):
        await attempt.end(RunStatus.SUCCEEDED, {"output": "x"}, {"output": "x"}, taken=0)
    assert (await ended(out, model.run_id)).status is RunStatus.RUNNING
