"""Runs over HTTP: their state, steps, events, and cancelling them."""

from datetime import UTC, datetime
from typing import Any

import orjson

from gateway.routes.answers import ThreadOpened
from shared.threads.attempt import Change
from shared.threads.steps import StepRecord
from shared.types import RunStatus, StepStatus
from tests.gateway.support import Gateway, delta, finish
from tests.gateway.test_threads import all_pages


async def run_of(gateway: Gateway, run_id: str) -> dict[str, Any]:
    answer = await gateway.client.get(f"/api/runs/{run_id}")
    assert answer.status_code == 200
    return dict(answer.json())


def test_times_sort_as_their_texts_do() -> None:
    whole = datetime(2026, 11, 21, 10, 18, 48, tzinfo=UTC)
    times = [whole, whole.replace(microsecond=3_000), whole.replace(second=49)]
    texts = [ThreadOpened(thread_id="t", created_at=time, status="idle").model_dump(mode="json") for time in times]
    assert [text["created_at"] for text in texts] == [
        "2026-11-21T10:18:48.000Z",
        "2026-11-21T10:18:48.003Z",
        "2026-11-21T10:18:49.000Z",
    ]


async def test_a_run_shows_what_became_of_it(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id, "a task", parameters={"max_turns": 2})
    pending = await run_of(gateway, run_id)
    assert (pending["status"], pending["attempt"], pending["started_at"]) == ("pending", 0, None)
    assert pending["input"] == {"task": "a task", "context_data": []}
    assert pending["parameters"] == {"max_turns": 2}
    attempt = await gateway.attempt(run_id)
    running = await run_of(gateway, run_id)
    assert (running["status"], running["attempt"], running["worker"]) == ("running", 1, "w1")
    await attempt.commit(Change(run={"usage": orjson.dumps({"input_tokens": 3})}))
    await attempt.end(RunStatus.SUCCEEDED, {"output": "done"}, {"output": "done"})
    ended = await run_of(gateway, run_id)
    assert (ended["status"], ended["output"], ended["error"], ended["usage"]) == (
        "succeeded",
        "done",
        None,
        {"input_tokens": 3},
    )
    assert ended["created_at"] <= ended["started_at"] <= ended["ended_at"]
    ids = [entry.id for entry in await gateway.store.events(thread_id)]
    assert (ended["first_event_id"], ended["last_event_id"]) == (ids[0], ids[-1])


async def test_a_failed_run_says_why(gateway: Gateway) -> None:
    run_id = await gateway.execute(await gateway.thread())
    error = {"code": "model_auth", "detail": "The key was refused."}
    await (await gateway.attempt(run_id)).end(RunStatus.FAILED, {"error": error}, {"error": error})
    run = await run_of(gateway, run_id)
    assert (run["status"], run["error"]) == ("failed", error)


async def test_steps_are_listed_in_the_order_of_their_start(gateway: Gateway) -> None:
    run_id = await gateway.execute(await gateway.thread())
    assert (await gateway.client.get(f"/api/runs/{run_id}/steps")).json() == {"items": [], "next_cursor": None}
    attempt = await gateway.attempt(run_id)
    for number in (1, 2, 3):
        done = StepStatus.SUCCEEDED if number < 3 else StepStatus.RUNNING
        step = StepRecord(f"tool:{9 - number}", number, "bash", "tool", done, "h", result={"ok": True}, duration_ms=5)
        await attempt.commit(Change(steps=[step]))
    steps = await all_pages(gateway, f"/api/runs/{run_id}/steps", 2)
    assert [step["step_id"] for step in steps] == [f"{run_id}.{number}" for number in (1, 2, 3)]
    assert [step["status"] for step in steps] == ["succeeded", "succeeded", "running"]
    assert (steps[0]["key"], steps[0]["kind"], steps[0]["output"]) == ("tool:8", "tool", {"ok": True})


async def test_events_as_json_are_the_streams_with_their_ids(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    first = await gateway.execute(thread_id)
    second = await gateway.execute(thread_id)
    attempt = await gateway.attempt(first)
    await attempt.emit([delta(f'{number} \u00e9 "x"') for number in range(10)])
    await finish(attempt)
    await finish(await gateway.attempt(second), 3)
    entries = await gateway.store.events(thread_id)
    for run_id in (first, second):
        expected = [{"id": e.id, **orjson.loads(e.event)} for e in entries if e.run_id == run_id]
        for limit in (1, 4, 200):
            assert await all_pages(gateway, f"/api/runs/{run_id}/events", limit) == expected
        after = {"last_id": expected[2]["id"]}
        rest = (await gateway.client.get(f"/api/runs/{run_id}/events", params=after)).json()
        assert rest == {"items": expected[3:], "next_cursor": None}


async def test_a_run_nobody_began_is_canceled_at_once_and_the_next_one_is_rung_for(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    first, second = await gateway.execute(thread_id), await gateway.execute(thread_id)
    answer = await gateway.client.post(f"/api/runs/{first}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert (await gateway.client.get(f"/api/agent/{thread_id}")).json()["current_run_id"] == second
    await finish(await gateway.attempt(second))


async def test_a_running_run_is_canceled_only_once_its_worker_has_ended_it(gateway: Gateway) -> None:
    run_id = await gateway.execute(await gateway.thread())
    attempt = await gateway.attempt(run_id)
    for _ in range(2):
        answer = (await gateway.client.post(f"/api/runs/{run_id}/cancel", json={})).json()
        assert (answer["status"], answer["cancel_requested"]) == ("running", True)
    await attempt.end(RunStatus.CANCELED, {"reason": "canceled"}, {})
    assert (await run_of(gateway, run_id))["status"] == "canceled"


async def test_a_run_that_has_ended_stays_as_it_is(gateway: Gateway) -> None:
    run_id = await gateway.finished_run(await gateway.thread())
    answer = (await gateway.client.post(f"/api/runs/{run_id}/cancel")).json()
    assert (answer["status"], answer["cancel_requested"]) == ("succeeded", False)


async def test_cancelling_takes_no_fields(gateway: Gateway) -> None:
    run_id = await gateway.execute(await gateway.thread())
    answer = await gateway.client.post(f"/api/runs/{run_id}/cancel", json={"reason": "x"})
    assert (answer.status_code, answer.json()["errors"][0]["place"]) == (400, "body.reason")
    assert (await run_of(gateway, run_id))["cancel_requested"] is False
