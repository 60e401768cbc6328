"""What is seen of steps: their inputs, their times and what they follow, of functions and of agents."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from modem.agenda import Agenda
from shared.config import PayloadsSettings
from shared.ids import SHARDS
from shared.types import JSON
from tests.gateway.support import Gateway, serving, settings_for
from tests.support.databases import put_database
from tests.workflow.agent.test_delegate import Books, delegate, runtime_of
from tests.workflow.support import Playbook, a_runtime, turn
from workflow.engine.durable import durable
from workflow.engine.step import Step
from workflow.runner import Runner, Signals
from workflow.runtime import Runtime

INLINE_BYTES = 2_000


@pytest.fixture
async def gateway(redis_url: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    put_database(tmp_path)
    payloads = PayloadsSettings(inline_bytes=INLINE_BYTES, max_bytes=100_000)
    async with serving(settings_for(redis_url, tmp_path, payloads=payloads)) as gateway:
        yield gateway


async def work(gateway: Gateway, runtime: Runtime, *run_ids: str) -> None:
    out = gateway.app.state.services.outside
    for run_id in run_ids:
        await Agenda(out).tick(range(SHARDS))
        await Runner(out, runtime).execute(run_id, "w1", Signals())


async def of_function(gateway: Gateway, flow: Any, *others: Any) -> tuple[str, Runtime]:
    runtime = a_runtime(Playbook([]), functions=[durable(each.__name__)(each) for each in (flow, *others)])
    body = {"runnable_type": "function", "runnable_id": "flow"}
    run_id: str = (await gateway.client.post("/api/runs", json=body)).json()["run_id"]
    await work(gateway, runtime, run_id)
    return run_id, runtime


async def steps(gateway: Gateway, run_id: str, **query: Any) -> dict[str, JSON]:
    """By their keys."""
    answer = await gateway.client.get(f"/api/runs/{run_id}/steps", params=query)
    assert answer.status_code == 200, answer.text
    return {step["key"]: step for step in answer.json()["items"]}


async def event_times(gateway: Gateway, run_id: str) -> dict[tuple[str | None, str], str]:
    events = (await gateway.client.get(f"/api/runs/{run_id}/events", params={"limit": 200})).json()["items"]
    return {(event["step_id"], event["type"]): event["time"] for event in events}


def seconds_between(one: str, other: str) -> float:
    return abs((datetime.fromisoformat(one) - datetime.fromisoformat(other)).total_seconds())


async def test_a_functions_steps_have_their_inputs_and_times(gateway: Gateway) -> None:
    async def flow(step: Step, _: Any) -> None:
        given = {"order": 7}

        async def charge() -> str:
            given["order"] = 8
            return "receipt"

        await step.do("charge", charge, input=given)
        await step.do("pay", charge, input=[1], repeat=False)
        await step.publish("paid", {"of": 7}, key="k")
        await step.emit("progress", {"done": 1})
        await step.approve({"question": "go on?"}, name="ask")
        await step.wait_for_event("go", key="7")

    run_id, runtime = await of_function(gateway, flow)
    waiting = (await steps(gateway, run_id))["approve:ask"]
    assert (waiting["input"], waiting["ended_at"]) == ({"question": "go on?"}, None)
    answered = await gateway.client.post(f"/api/steps/{waiting['step_id']}/human-complete", json={"output": True})
    assert answered.json()["started_at"] == waiting["started_at"] <= answered.json()["ended_at"]
    await work(gateway, runtime, run_id)
    await gateway.client.post("/api/events", json={"name": "go", "key": "7"})
    await work(gateway, runtime, run_id)

    found = await steps(gateway, run_id)
    assert {key: step["input"] for key, step in found.items()} == {
        "charge": {"order": 7},
        "pay": [1],
        "publish:paid": {"name": "paid", "key": "k", "payload": {"of": 7}},
        "emit:progress": {"done": 1},
        "approve:ask": {"question": "go on?"},
        "event:go": {"name": "go", "key": "7"},
    }
    assert all(step["parents"] == [] for step in found.values())  # nobody knows which of them follows which
    times = await event_times(gateway, run_id)
    for step in found.values():
        assert step["started_at"] <= step["ended_at"]
        assert seconds_between(step["started_at"], times[step["step_id"], "step.started"]) < 0.1
        assert step["ended_at"] == times[step["step_id"], "step.completed"]
        one = (await gateway.client.get(f"/api/steps/{step['step_id']}")).json()
        assert one == step


async def test_a_step_that_was_not_reached_ends_with_its_run(gateway: Gateway) -> None:
    async def flow(step: Step, _: Any) -> None:
        await step.sleep(3600)

    run_id, runtime = await of_function(gateway, flow)
    before = (await steps(gateway, run_id))["sleep"]
    assert seconds_between(before["input"]["until"], before["started_at"]) == pytest.approx(3600, abs=1)
    await gateway.client.post(f"/api/runs/{run_id}/cancel")
    await work(gateway, runtime, run_id)
    after = (await steps(gateway, run_id))["sleep"]
    assert (after["status"], after["started_at"]) == ("canceled", before["started_at"])
    assert after["ended_at"] == (await event_times(gateway, run_id))[None, "run.canceled"]


async def test_a_large_input_stands_apart_and_one_above_the_limit_nowhere(gateway: Gateway) -> None:
    async def flow(step: Step, _: Any) -> None:
        async def nothing() -> None:
            """Does nothing."""

        await step.do("large", nothing, input="x" * INLINE_BYTES, repeat=False)
        await step.do("huge", nothing, input="x" * 200_000)
        await step.emit("progress", {"table": "x" * INLINE_BYTES})

    run_id, _ = await of_function(gateway, flow)
    found = await steps(gateway, run_id)
    assert (found["large"]["input"], found["large"]["input_ref"]["bytes"]) == (None, INLINE_BYTES + 2)
    assert (found["huge"]["input"], found["huge"]["input_ref"]) == (None, None)
    assert found["emit:progress"]["input_ref"] == found["emit:progress"]["output_ref"]
    forked = (await gateway.client.post(f"/api/runs/{run_id}/fork")).json()["run_id"]
    for step_id in (found["large"]["step_id"], f"{forked}.1"):
        whole = (await gateway.client.get(f"/api/steps/{step_id}")).json()
        assert whole["input"] == "x" * INLINE_BYTES


BOOK = {
    "Task": [
        turn("", ("a", "look", '{"x": 1}'), ("b" * 100, "keyed", "{}")),
        turn("", delegate("c", "Left")),
        turn("Done."),
    ],
    "Left": [turn("", ("d", "look", "{}")), turn("Left is done.")],
}


async def of_agent(gateway: Gateway, book: Any = BOOK) -> tuple[str, Runtime]:
    runtime = runtime_of(Books(book), gateway.redis)
    run_id = await gateway.execute(await gateway.thread(), "Task")
    await work(gateway, runtime, run_id)
    return run_id, runtime


async def test_an_agents_steps_follow_one_another(gateway: Gateway) -> None:
    run_id, runtime = await of_agent(gateway)
    [asking] = [step for step in (await steps(gateway, run_id)).values() if step["kind"] == "child"]
    child_id = asking["wait"]["name"]
    await work(gateway, runtime, child_id, run_id)

    found = await steps(gateway, run_id)
    key_of = {step["step_id"]: step["key"] for step in found.values()}
    follows = {step["key"]: [key_of[parent] for parent in step["parents"]] for step in found.values()}
    of_b = next(key for key in found if key.startswith("tool:") and key not in ("tool:a", "tool:c"))
    assert follows == {
        "llm:1": [],
        "tool:a": ["llm:1"],
        of_b: ["llm:1"],
        "llm:2": ["tool:a", of_b],
        "call:delegate:c": ["llm:2"],
        "tool:c": ["llm:2"],
        "llm:3": ["tool:c"],
    }
    assert found["tool:a"]["input"] == {"tool_call_id": "a", "name": "look", "arguments": '{"x": 1}'}
    assert found[of_b]["input"]["tool_call_id"] == "b" * 100
    assert found["call:delegate:c"]["input"]["input"] == "Left"
    assert [found[f"llm:{turn}"]["input"] for turn in (1, 2, 3)] == [{"messages": count} for count in (1, 4, 6)]
    assert all(step["started_at"] <= step["ended_at"] for step in found.values())

    of_child = await steps(gateway, child_id)
    assert of_child["llm:1"]["parents"] == [asking["step_id"]]
    assert of_child["llm:2"]["parents"] == [of_child["tool:d"]["step_id"]]


async def test_a_called_functions_steps_follow_the_one_that_called_it(gateway: Gateway) -> None:
    async def child(step: Step, _: Any) -> None:
        await step.emit("progress", {})
        await step.emit("progress", {})

    async def flow(step: Step, _: Any) -> None:
        await step.call("function:child", {"of": 7})

    run_id, runtime = await of_function(gateway, flow, child)
    [call] = (await steps(gateway, run_id)).values()
    assert (call["input"]["id"], call["input"]["input"]) == ("child", {"of": 7})
    await work(gateway, runtime, call["wait"]["name"])
    found = await steps(gateway, call["wait"]["name"])
    assert [step["parents"] for step in found.values()] == [[call["step_id"]]] * 2


async def test_a_call_is_shown_on_whichever_page_it_is(gateway: Gateway) -> None:
    run_id, _ = await of_agent(gateway)
    second = await steps(gateway, run_id, limit=1, cursor="1")
    assert second["tool:a"]["input"]["arguments"] == '{"x": 1}'
    assert second["tool:a"]["parents"] == [f"{run_id}.1"]


async def test_a_large_call_is_whole_where_one_step_is_asked_for(gateway: Gateway) -> None:
    arguments = orjson.dumps({"text": "x" * INLINE_BYTES}).decode()
    run_id, _ = await of_agent(gateway, {"Task": [turn("", ("a", "look", arguments)), turn("Done.")]})
    found = await steps(gateway, run_id)
    assert (found["tool:a"]["input"], found["tool:a"]["input_ref"]) == (None, found["llm:1"]["output_ref"])
    whole = (await gateway.client.get(f"/api/steps/{found['tool:a']['step_id']}")).json()
    assert whole["input"] == {"tool_call_id": "a", "name": "look", "arguments": arguments}


async def test_a_fork_keeps_what_is_seen_of_its_steps(gateway: Gateway) -> None:
    run_id, _ = await of_agent(gateway)
    before = await steps(gateway, run_id)
    answer = await gateway.client.post(f"/api/runs/{run_id}/fork", json={"step_id": before["tool:a"]["step_id"]})
    after = await steps(gateway, answer.json()["run_id"])
    assert {name: after["llm:1"][name] for name in ("started_at", "ended_at", "input")} == {
        name: before["llm:1"][name] for name in ("started_at", "ended_at", "input")
    }
