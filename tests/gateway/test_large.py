"""Large values over HTTP: whole where one thing is asked for, a reference in lists and in events."""

import json
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from shared.config import PayloadsSettings
from shared.threads.brief import EVENT_BYTES
from tests.gateway.support import Gateway, frames_of, ids_in, serving, settings_for
from tests.workflow.support import Playbook, a_runtime
from workflow.engine.durable import durable
from workflow.engine.step import Step
from workflow.runner import Runner, Signals

LARGE = "x" * 100_000


@pytest.fixture
async def gateway(redis_url: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    payloads = PayloadsSettings(store="folder", spill_bytes=0)
    async with serving(settings_for(redis_url, tmp_path, payloads=payloads)) as gateway:
        yield gateway


@durable("ask")
async def ask(step: Step, input: Any) -> Any:
    answer = await step.approve({"question": input})
    await step.emit("progress", {"table": answer})
    return answer


async def work(gateway: Gateway, run_id: str) -> None:
    runner = Runner(gateway.app.state.services.outside, a_runtime(Playbook([]), functions=[ask]))
    await runner.execute(run_id, "w1", Signals())


async def asked(gateway: Gateway, question: str) -> str:
    body = {"runnable_type": "function", "runnable_id": "ask", "input": question}
    run = (await gateway.client.post("/api/runs", json=body)).json()
    await work(gateway, run["run_id"])
    return str(run["run_id"])


def reference(value: Any) -> dict[str, Any]:
    data = json.dumps(value, separators=(",", ":")).encode()
    return {"sha256": sha256(data).hexdigest(), "bytes": len(data)}


def listed_reference(value: Any) -> dict[str, Any]:
    return {**reference(value), "error": None}


async def test_a_run_and_a_step_are_whole_and_lists_have_references(gateway: Gateway, tmp_path: Path) -> None:
    run_id = await asked(gateway, LARGE)
    [listed] = (await gateway.client.get("/api/approvals")).json()["items"]
    assert listed["wait"]["request"] is None
    assert listed["wait"]["request_ref"] == listed_reference({"question": LARGE})
    step = (await gateway.client.get(f"/api/steps/{listed['step_id']}")).json()
    assert step["wait"]["request"] == {"question": LARGE}

    path, key = f"/api/steps/{listed['step_id']}/human-complete", {"Idempotency-Key": "once"}
    answers = [await gateway.client.post(path, json={"output": LARGE}, headers=key) for _ in range(2)]
    assert [(answer.status_code, answer.json()["output"] == LARGE) for answer in answers] == [(200, True)] * 2
    await work(gateway, run_id)

    run = (await gateway.client.get(f"/api/runs/{run_id}")).json()
    assert (run["status"], run["input"], run["output"]) == ("succeeded", {"input": LARGE}, LARGE)
    assert (run["input_ref"], run["output_ref"]) == (listed_reference({"input": LARGE}), listed_reference(LARGE))
    first, emitted = (await gateway.client.get(f"/api/runs/{run_id}/steps")).json()["items"]
    assert (first["output"], first["output_ref"]) == (None, listed_reference(LARGE))
    assert (await gateway.client.get(f"/api/steps/{emitted['step_id']}")).json()["output"] == {"table": LARGE}
    assert len([path for path in (tmp_path / "payloads").rglob("*.*") if path.is_file()]) == 6


async def test_the_steps_pages_follow_one_another(gateway: Gateway) -> None:
    run_id = await asked(gateway, "small")
    path = f"/api/runs/{run_id}/steps"
    [step] = (await gateway.client.get(path)).json()["items"]
    await gateway.client.post(f"/api/steps/{step['step_id']}/human-complete", json={"output": 1})
    await work(gateway, run_id)
    first = (await gateway.client.get(path, params={"limit": 1})).json()
    second = (await gateway.client.get(path, params={"limit": 1, "cursor": first["next_cursor"]})).json()
    assert [page["items"][0]["step_id"] for page in (first, second)] == [f"{run_id}.1", f"{run_id}.2"]
    assert second["next_cursor"] is None
    assert (await gateway.client.get(f"/api/steps/{run_id}.3")).status_code == 404


async def test_the_stream_carries_no_event_above_its_cap(gateway: Gateway) -> None:
    run_id = await asked(gateway, LARGE)
    [step] = (await gateway.client.get("/api/approvals")).json()["items"]
    await gateway.client.post(f"/api/steps/{step['step_id']}/human-complete", json={"output": LARGE})
    await work(gateway, run_id)
    body = await gateway.body_of(f"/api/runs/{run_id}/events", {"accept": "text/event-stream"})
    frames = [frame for frame in frames_of(body) if frame.id]
    assert len(frames) == len(ids_in(body)) > 5
    assert max(len(frame.raw) for frame in frames) < EVENT_BYTES + 1000
    told = {frame.data["type"]: frame.data["data"] for frame in frames}
    assert told["run.completed"] == {"output": None, "output_ref": reference(LARGE)}
    assert told["step.waiting_human"]["request_ref"] == reference({"question": LARGE})
    assert told["run.queued"] == {"input": None, "input_ref": reference(LARGE)}
    assert told["progress"] == {"table": None, "table_ref": reference(LARGE)}


async def test_a_message_to_a_running_agent_is_whole_in_the_run_and_short_on_the_stream(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id)
    await gateway.attempt(run_id)
    answer = await gateway.client.post(f"/api/agent/{thread_id}/message", json={"content": LARGE})
    assert answer.status_code == 200
    [message] = await gateway.store.inbox(run_id, 0)
    assert message["content"] == LARGE
    *_, event = (await gateway.client.get(f"/api/runs/{run_id}/events")).json()["items"]
    assert event["data"]["content_ref"] == reference(LARGE)


async def test_a_value_that_was_lost_is_said_to_be_lost_and_the_rest_is_shown(
    gateway: Gateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = await asked(gateway, LARGE)
    for path in (tmp_path / "payloads").rglob("*.*"):
        path.unlink()
    answer = await gateway.client.get(f"/api/runs/{run_id}")
    assert (answer.status_code, answer.json()["status"]) == (200, "waiting")
    assert answer.json()["input"] is None
    assert answer.json()["input_ref"] == {**reference({"input": LARGE}), "error": "result_lost"}
    assert f"is not in {tmp_path / 'payloads'} any more" in caplog.text
