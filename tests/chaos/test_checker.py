"""The checker finds what it is there to find: each test plants one fault into a run that is as it should be."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.tenant import Tenant
from shared.threads.steps import StepRecord, Wait
from shared.threads.types import Run
from shared.types import RunStatus, StepStatus, WaitKind
from tests.chaos.checker import CHECKS, Checker, Seen
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import Ledger
from tests.chaos.load import Job

RUN = "t.r"
LATER = Wait(WaitKind.TIMER, until=99)


def event(number: int, kind: str, attempt: int = 1, step: int | None = None, **data: Any) -> dict[str, Any]:
    step_id = None if step is None else f"{RUN}.{step}"
    return {"id": f"{number}-0", "type": kind, "attempt": attempt, "step_id": step_id, "data": data}


def a_step(key: str, number: int, kind: str, result: Any = None, wait: Wait | None = None) -> StepRecord:
    return StepRecord(key, number, key, kind, StepStatus.SUCCEEDED, "hash", result=result, wait=wait)


def a_run() -> Seen:
    """A model's answer, a worker's death in the middle of it, a sleep, and the end."""
    record = {"workspace": "w", "runnable_type": "agent", "status": "succeeded", "epoch": "2", "output": '"Hello."'}
    record |= {"input": "{}", "parameters": "{}", "created_at": "1", "first_event": "1-0", "last_event": "20-0"}
    run = Run.parse(RUN, record)
    steps = [
        a_step("llm:1", 1, "llm", {"content": "Hello."}),
        a_step("sleep", 2, "timer", wait=Wait(WaitKind.TIMER, until=14)),
    ]
    events = [
        event(1, "run.queued", 0),
        event(2, "run.started"),
        event(3, "agent.request", step=1),
        event(4, "agent.delta", step=1, text="Hel"),
        event(5, "run.interrupted"),
        event(6, "run.resumed", 2),
        event(7, "agent.request", 2, step=1),
        event(8, "agent.delta", 2, step=1, text="Hel"),
        event(9, "agent.delta", 2, step=1, text="lo."),
        event(10, "step.completed", 2, step=1, key="llm:1"),
        event(15, "step.completed", 2, step=2, key="sleep"),
        event(20, "run.completed", 2),
    ]
    return Seen(Job(1, "agent", "op", text="Hello."), False, run, steps, frozenset(), events)


def without(seen: Seen, *ids: str) -> Seen:
    return replace(seen, events=[e for e in seen.events if e["id"] not in ids])


def with_run(seen: Seen, **fields: Any) -> Seen:
    return replace(seen, run=replace(seen.run, **fields))


def with_event(seen: Seen, place: int, new: dict[str, Any]) -> Seen:
    return replace(seen, events=[*seen.events[:place], new, *seen.events[place:]])


def faults(seen: Seen) -> list[str]:
    return [fault for check in CHECKS for fault in check(seen)]


def test_a_run_as_it_should_be_has_no_fault() -> None:
    assert faults(a_run()) == []


def test_the_text_of_a_step_that_a_retry_began_with_is_the_other_runs() -> None:
    """The run that it retries was canceled right after its last answer."""
    retry = without(a_run(), *(f"{number}-0" for number in (3, 4, 7, 8, 9, 10)))
    assert "streamed 0 characters" in str(faults(retry))
    assert faults(replace(retry, given=frozenset(["llm:1"]))) == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda seen: with_run(seen, status=RunStatus.RUNNING), "is running"),
        (lambda seen: with_run(seen, status=RunStatus.CANCELED), "is canceled"),
        (lambda seen: with_run(seen, output="Hell"), "answered"),
        (lambda seen: without(seen, "10-0"), "ended 0 times"),
        (lambda seen: with_event(seen, 11, event(16, "step.completed", 2, 2, key="sleep")), "ended 2 times"),
        (lambda seen: with_event(seen, 11, event(16, "step.completed", 2, 3, key="x")), "does not know"),
        (lambda seen: with_event(seen, 11, event(16, "log", 1)), "attempts fall"),
        (lambda seen: without(seen, "2-0"), "claims are not"),
        (lambda seen: with_run(seen, epoch=3), "epoch 3"),
        (lambda seen: replace(seen, steps=[seen.steps[0], a_step("sleep", 2, "timer", wait=LATER)]), "before 99"),
        (lambda seen: without(seen, "20-0"), "ends with"),
        (lambda seen: with_event(seen, 11, event(16, "run.failed", 2)), "has the ends"),
        (lambda seen: without(seen, "9-0"), "streamed 3 characters"),
        (lambda seen: without(seen, "7-0"), "streamed 9 characters"),
    ],
)
def test_a_fault_is_found(spoil: Callable[[Seen], Seen], words: str) -> None:
    assert any(words in fault for fault in faults(spoil(a_run())))


@pytest.mark.parametrize(
    ("tool", "effects", "announced", "right"),
    [
        ("keyed", 1, 0, True),
        ("keyed", 2, 0, False),
        ("keyed", 0, 0, False),
        ("blind", 1, 0, True),
        ("blind", 0, 0, False),
        ("blind", 2, 0, False),
        ("blind", 0, 1, True),
        ("blind", 2, 1, True),
        ("blind", 3, 1, False),
    ],
)
def test_the_ledger_is_compared_with_what_was_said(
    tmp_path: Path, tool: str, effects: int, announced: int, right: bool
) -> None:
    ledger = Ledger(tmp_path)
    for number in range(effects):
        ledger.do_keyed("op", f"key {number}") if tool == "keyed" else ledger.do_blind("op")
    seen = a_run()
    for number in range(announced):
        told = event(16 + number, "tool.response", 2, error_code="outcome_unknown")
        seen = with_event(seen, 11, told)
    job = Job(1, "agent", "op", ops={"op": tool})
    checker = Checker.__new__(Checker)
    checker._fleet = cast("Fleet", SimpleNamespace(ledger=ledger))
    checker.seen = [replace(seen, job=job)]
    assert (checker._ledger() == []) is right


def test_a_service_that_knows_its_keys_does_nothing_twice(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert [ledger.do_keyed("op", "key"), ledger.do_keyed("op", "key")] == [True, False]
    assert ledger.keys_of_keyed() == {"op": {"key"}}


@pytest.mark.parametrize(
    "key",
    [
        keys.parked("w"),
        keys.streams("w", "k"),
        keys.timers(7),
        keys.deliveries(7),
        keys.approvals(Tenant("w")),
    ],
)
async def test_what_is_left_behind_is_seen_behind_any_number_of_markers(redis_url: str, key: str) -> None:
    async with Redis.from_url(redis_url, decode_responses=True) as client:
        await client.zadd(key, {f"blob|t|redis/{number}": 1 for number in range(20)})
        assert await left_behind(client) == []
        await client.zadd(key, {"t.r": 2})
        assert await left_behind(client) == [f"{key}: ['t.r']"]


async def test_a_models_call_that_still_holds_budget_is_seen(redis_url: str) -> None:
    held = keys.budget("w", "held", RUN)
    async with Redis.from_url(redis_url, decode_responses=True) as client:
        await client.hset(held, mapping={".last": "1 1 100 ", ".over": "1"})
        assert await left_behind(client) == []
        await client.hset(held, f"{RUN}.1", "1 1 1000 5 5")
        assert await left_behind(client) == [f"{held}: ['{RUN}.1']"]


async def left_behind(client: Redis) -> list[str]:
    checker = Checker.__new__(Checker)
    checker._fleet = cast("Fleet", SimpleNamespace(redis=client))
    return [entry async for entry in checker._indexed()]
