"""Durable functions over HTTP: what clients send to runs that wait. The worker is in the test's own loop."""

import asyncio
from typing import Any

import pytest

from gateway.routes.bodies import Parameters
from modem.agenda import Agenda
from shared import keys
from shared.ids import SHARDS
from shared.keys import thread_keys_of
from shared.tenant import Tenant
from shared.types import AGENT_PARAMETERS, RunStatus
from tests.gateway.support import Gateway
from tests.workflow.support import Playbook, a_runtime, turn
from workflow.engine.durable import durable
from workflow.engine.step import Step
from workflow.runner import Runner, Signals


class Worker:
    """Takes what is pending, and sweeps."""

    def __init__(self, gateway: Gateway) -> None:
        self.out = gateway.app.state.services.outside
        self.calls: list[str] = []
        self.broken = True
        flows = [durable("ask")(ask), durable("pause")(pause), durable("pay")(self.pay), durable("chain")(self.chain)]
        self.runner = Runner(self.out, a_runtime(Playbook([turn("Done.")]), functions=flows))

    async def pay(self, step: Step, _: Any) -> Any:
        async def charge() -> str:
            self.calls.append("charge")
            await asyncio.sleep(60 if len(self.calls) == 1 else 0)
            return "receipt"

        return await step.do("charge", charge, repeat=False)

    async def chain(self, step: Step, _: Any) -> Any:
        async def work(name: str) -> str:
            self.calls.append(name)
            if name == "b" and self.broken:
                raise ValueError("b is broken")
            return name

        return [await step.do(name, lambda name=name: work(name), input=name) for name in "abc"]

    async def work(self, run_id: str) -> None:
        await Agenda(self.out).tick(range(SHARDS))
        await self.runner.execute(run_id, "w1", Signals())


async def ask(step: Step, input: Any) -> Any:
    return await step.approve({"question": input}, name="question")


async def pause(step: Step, input: Any) -> Any:
    return await step.wait_for_event("go", key=input, timeout=60)


@pytest.fixture
def worker(gateway: Gateway) -> Worker:
    return Worker(gateway)


async def start(gateway: Gateway, worker: Worker, name: str, input: Any = None, **body: Any) -> dict[str, Any]:
    body = {"runnable_type": "function", "runnable_id": name, "input": input, **body}
    answer = await gateway.client.post("/api/runs", json=body)
    assert answer.status_code == 201, answer.text
    await worker.work(answer.json()["run_id"])
    return await get(gateway, answer.json()["run_id"])


async def get(gateway: Gateway, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await gateway.client.get(f"/api/runs/{run_id}")).json()
    return found


async def steps(gateway: Gateway, run_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await gateway.client.get(f"/api/runs/{run_id}/steps")).json()["items"]
    return found


async def test_a_function_waits_for_an_event_that_a_client_publishes(gateway: Gateway, worker: Worker) -> None:
    run = await start(gateway, worker, "pause", "7")
    assert run["status"] == "waiting"
    [step] = await steps(gateway, run["run_id"])
    assert (step["status"], step["wait"]["kind"], step["wait"]["name"]) == ("waiting", "event", "go")
    answer = await gateway.client.post("/api/events", json={"name": "go", "key": "7", "payload": [1]})
    assert answer.status_code == 201
    await worker.work(run["run_id"])
    assert (await get(gateway, run["run_id"]))["output"] == [1]


async def test_an_event_sent_twice_under_one_idempotency_key_is_one_event(gateway: Gateway) -> None:
    event = {"name": "go", "key": "7"}
    ids = set()
    for _ in range(3):
        answer = await gateway.client.post("/api/events", json=event, headers={"Idempotency-Key": "k1"})
        ids.add(answer.json()["event_id"])
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/api/events", {"name": " "}, "body.name"),
        ("/api/events", {"name": "a", "key": "k", "run_id": "r"}, "body"),
        ("/api/events", {"name": "a", "nonsense": 1}, "body.nonsense"),
        ("/api/runs", {"runnable_type": "function"}, "body"),
        ("/api/runs", {"runnable_type": "agent", "input": {"task": ""}}, "body"),
        ("/api/runs", {"runnable_type": "team", "runnable_id": "x"}, "body.runnable_type"),
    ],
)
async def test_bad_input_is_refused_with_its_place(gateway: Gateway, path: str, body: Any, place: str) -> None:
    answer = await gateway.client.post(path, json=body)
    assert answer.status_code == 400, answer.text
    assert any(error["place"].startswith(place) for error in answer.json()["errors"]), answer.text


UNHEEDED = [{"max_turns": 3}, {"max_cost": 1}, {"max_tokens": 100}, {"model": "m"}, {"temperature": 1}, {"tools": []}]


def test_what_runs_heed_is_what_requests_may_say() -> None:
    assert Parameters.model_fields.keys() == AGENT_PARAMETERS


@pytest.mark.parametrize("parameters", UNHEEDED, ids=lambda parameters: next(iter(parameters)))
async def test_a_function_is_given_no_parameter_that_would_have_no_effect(
    gateway: Gateway, worker: Worker, parameters: Any
) -> None:
    body = {"runnable_type": "function", "runnable_id": "chain", "parameters": parameters}
    refused = [await gateway.client.post("/api/runs", json=body)]
    run = await start(gateway, worker, "chain", parameters={"max_seconds": 60, "priority": "low"})
    assert run["status"] == "failed"
    retry = f"/api/runs/{run['run_id']}/retry"
    refused.append(await gateway.client.post(retry, json={"parameters": parameters}))
    for answer in refused:
        assert answer.status_code == 400, answer.text
        assert next(iter(parameters)) in answer.text
    assert (await gateway.client.post(retry, json={"parameters": {"max_seconds": 90}})).status_code == 201


async def test_an_event_for_a_run_that_is_not_there_is_refused(gateway: Gateway) -> None:
    assert (await gateway.client.post("/api/events", json={"name": "a", "run_id": "x.y"})).status_code == 404


async def test_a_human_answers_once(gateway: Gateway, worker: Worker) -> None:
    run = await start(gateway, worker, "ask", "really?")
    [listed] = (await gateway.client.get("/api/approvals")).json()["items"]
    assert listed["wait"]["request"] == {"question": "really?"}
    path, body = f"/api/steps/{listed['step_id']}/human-complete", {"output": {"yes": True}}
    first = await gateway.client.post(path, json=body, headers={"Idempotency-Key": "a"})
    again = await gateway.client.post(path, json=body, headers={"Idempotency-Key": "a"})
    late = await gateway.client.post(path, json={"output": {"yes": False}})
    assert [first.status_code, again.status_code, late.status_code] == [200, 200, 409]
    await worker.work(run["run_id"])
    assert (await get(gateway, run["run_id"]))["output"] == {"yes": True}
    assert (await gateway.client.get("/api/approvals")).json()["items"] == []


async def test_no_approval_is_skipped_when_others_are_answered_between_two_pages(
    gateway: Gateway, worker: Worker
) -> None:
    runs = [(await start(gateway, worker, "ask", number))["run_id"] for number in range(6)]
    approvals = keys.approvals(Tenant("default"))
    for number, run_id in enumerate(runs):  # three and three began to wait at the same time
        await gateway.redis.zadd(approvals, {f"{run_id}.1": 1 + number // 3})
    first = (await gateway.client.get("/api/approvals?limit=2")).json()
    for item in first["items"]:
        await gateway.client.post(f"/api/steps/{item['step_id']}/human-complete", json={"output": 1})
        await gateway.redis.zrem(approvals, item["step_id"])
    seen, cursor = [item["run_id"] for item in first["items"]], first["next_cursor"]
    while cursor:
        page = (await gateway.client.get("/api/approvals", params={"limit": 2, "cursor": cursor})).json()
        seen += [item["run_id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert sorted(seen) == sorted(runs)
    assert (await gateway.client.get("/api/approvals?cursor=2")).status_code == 400


async def test_an_approval_that_cannot_be_read_keeps_no_other_from_the_list(gateway: Gateway, worker: Worker) -> None:
    gone, broken, sound = [(await start(gateway, worker, "ask", number))["run_id"] for number in range(3)]
    await gateway.redis.delete(thread_keys_of(gone).run(gone))
    await gateway.redis.hset(thread_keys_of(broken).run(broken), "status", "of_tomorrow")
    items = (await gateway.client.get("/api/approvals")).json()["items"]
    assert [item["run_id"] for item in items] == [sound]


async def test_only_what_waits_for_a_human_can_be_answered_by_one(gateway: Gateway, worker: Worker) -> None:
    run = await start(gateway, worker, "pause", "7")
    [step] = await steps(gateway, run["run_id"])
    for path, body in (("human-complete", {"output": 1}), ("resolve", {"as": "done"})):
        answer = await gateway.client.post(f"/api/steps/{step['step_id']}/{path}", json=body)
        assert answer.status_code == 409
    assert (await gateway.client.post(f"/api/steps/{run['run_id']}.99/resolve", json={"as": "done"})).status_code == 404


async def unknown(gateway: Gateway, worker: Worker) -> tuple[str, str]:
    """A run and its step, whose outcome nobody knows."""
    answer = await gateway.client.post("/api/runs", json={"runnable_type": "function", "runnable_id": "pay"})
    run_id = answer.json()["run_id"]
    attempt = asyncio.create_task(worker.runner.execute(run_id, "dead", Signals()))
    async with asyncio.timeout(20):
        while not worker.calls:
            await asyncio.sleep(0.01)
    worker.runner.drop("dead")
    await attempt
    await worker.out.store.expire(run_id, "dead", max_attempts=5)
    await worker.work(run_id)
    [step] = await steps(gateway, run_id)
    assert step["status"] == "unknown"
    return run_id, str(step["step_id"])


async def test_an_unknown_outcome_is_settled(gateway: Gateway, worker: Worker) -> None:
    run_id, step_id = await unknown(gateway, worker)
    settled = await gateway.client.post(f"/api/steps/{step_id}/resolve", json={"as": "done", "output": "r-1"})
    assert settled.status_code == 200, settled.text
    await worker.work(run_id)
    run = await get(gateway, run_id)
    assert (run["status"], run["output"], worker.calls) == ("succeeded", "r-1", ["charge"])


async def test_a_decision_that_is_sent_again_is_no_conflict_when_the_run_has_gone_on(
    gateway: Gateway, worker: Worker
) -> None:
    run_id, step_id = await unknown(gateway, worker)
    path, body, headers = f"/api/steps/{step_id}/resolve", {"as": "done", "output": 1}, {"Idempotency-Key": "r1"}
    for _ in range(3):
        answer = await gateway.client.post(path, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        await worker.work(run_id)
    for other in ({}, {"Idempotency-Key": "r2"}):
        assert (await gateway.client.post(path, json=body, headers=other)).status_code == 409


async def test_a_humans_answer_that_is_sent_again_is_known_while_its_store_is_away(
    gateway: Gateway, worker: Worker
) -> None:
    run = await start(gateway, worker, "ask", "really?")
    [step] = await steps(gateway, run["run_id"])
    path, headers = f"/api/steps/{step['step_id']}/human-complete", {"Idempotency-Key": "a"}
    first = await gateway.client.post(path, json={"output": "x" * 100_000}, headers=headers)
    assert first.json()["output_ref"] is not None
    async for blob in gateway.redis.scan_iter("thread:*:blob:*"):
        await gateway.redis.delete(blob)
    again = await gateway.client.post(path, json={"output": "x" * 100_000}, headers=headers)
    assert (again.status_code, again.json()["output_ref"]["error"]) == (200, "result_lost")


@pytest.mark.parametrize("number", ["9" * 5000, "1" * 400, "1" * 10, "\u0663", "01", "0", "-1", ""])
async def test_what_is_no_steps_number_is_not_found(gateway: Gateway, worker: Worker, number: str) -> None:
    run = await start(gateway, worker, "pause", "7")
    step_id = f"{run['run_id']}.{number}"
    answers = [
        await gateway.client.get(f"/api/steps/{step_id}"),
        await gateway.client.post(f"/api/runs/{run['run_id']}/fork", json={"step_id": step_id}),
    ]
    assert {answer.status_code for answer in answers} <= {400, 404}


async def test_a_thread_is_not_forked_from_a_step_of_another(gateway: Gateway, worker: Worker) -> None:
    mine, other = await gateway.thread(), await gateway.thread()
    run_id = await gateway.execute(other, "x")
    await worker.work(run_id)
    answer = await gateway.client.post(f"/api/agent/{mine}/fork", json={"step_id": f"{run_id}.1"})
    assert answer.status_code == 404


async def test_a_retry_goes_on_from_the_failed_step_in_a_new_run(gateway: Gateway, worker: Worker) -> None:
    run = await start(gateway, worker, "chain")
    assert run["status"] == "failed"
    worker.broken = False
    headers = {"Idempotency-Key": "retry-1"}
    again = [await gateway.client.post(f"/api/runs/{run['run_id']}/retry", headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in again] == [201, 201]
    new = again[0].json()
    assert new["retried_from"] == run["run_id"]
    await worker.work(new["run_id"])
    late = await gateway.client.post(f"/api/runs/{run['run_id']}/retry", headers=headers)
    assert late.content == again[1].content == again[0].content
    done = await get(gateway, new["run_id"])
    assert (done["status"], done["output"]) == ("succeeded", ["a", "b", "c"])
    assert worker.calls == ["a", "b", "b", "c"]
    assert (await get(gateway, run["run_id"]))["status"] == "failed"
    assert (await gateway.client.post(f"/api/runs/{done['run_id']}/retry")).status_code == 409


async def test_a_fork_keeps_what_comes_before_a_step(gateway: Gateway, worker: Worker) -> None:
    worker.broken = False
    run = await start(gateway, worker, "chain")
    at = (await steps(gateway, run["run_id"]))[2]["step_id"]
    answer = await gateway.client.post(f"/api/runs/{run['run_id']}/fork", json={"step_id": at})
    assert answer.status_code == 201, answer.text
    fork = answer.json()
    assert fork["forked_from"] == run["run_id"]
    assert fork["thread_id"] != run["thread_id"]
    await worker.work(fork["run_id"])
    assert (await get(gateway, fork["run_id"]))["output"] == ["a", "b", "c"]
    assert worker.calls == ["a", "b", "c", "c"]
    assert (await gateway.client.post(f"/api/runs/{run['run_id']}/fork", json={"step_id": "x.1"})).status_code == 404


async def test_a_forked_thread_begins_with_the_conversation(gateway: Gateway, worker: Worker) -> None:
    thread_id = await gateway.thread()
    for task in ("one", "two"):
        await worker.work(await gateway.execute(thread_id, task))
    run_id = (await gateway.client.get(f"/api/agent/{thread_id}/runs")).json()["items"][0]["run_id"]
    for body, texts in (({}, ["one", "Done.", "two", "Done."]), ({"step_id": f"{run_id}.1"}, ["one", "Done."])):
        fork = (await gateway.client.post(f"/api/agent/{thread_id}/fork", json=body)).json()["thread_id"]
        messages = (await gateway.client.get(f"/api/agent/{fork}/messages")).json()["items"]
        assert [message["content"] for message in messages] == texts


async def test_a_thread_is_not_forked_from_another_threads_step(gateway: Gateway, worker: Worker) -> None:
    one, other = await gateway.thread(), await gateway.thread()
    run_id = await gateway.execute(other, "not for all eyes")
    await worker.work(run_id)
    answer = await gateway.client.post(f"/api/agent/{one}/fork", json={"step_id": f"{run_id}.1"})
    assert (answer.status_code, one in answer.json()["detail"]) == (404, True)


async def test_who_repeats_a_request_for_a_run_gets_the_same_answer_whatever_the_run_has_done_since(
    gateway: Gateway, worker: Worker
) -> None:
    thread_id = await gateway.thread()
    body = {"runnable_type": "agent", "input": {"task": "x"}, "thread_id": thread_id}
    first = await gateway.client.post("/api/runs", json=body, headers={"Idempotency-Key": "run-1"})
    await worker.work(first.json()["run_id"])
    again = await gateway.client.post("/api/runs", json=body, headers={"Idempotency-Key": "run-1"})
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert first.json()["status"] == "pending"


async def test_an_agents_run_is_retried_with_its_conversation(gateway: Gateway, worker: Worker) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id, "x")
    attempt = await gateway.attempt(run_id)
    await gateway.client.post(f"/api/agent/{thread_id}/cancel")
    await attempt.end(RunStatus.CANCELED, {"reason": "canceled"}, {})
    new = (await gateway.client.post(f"/api/runs/{run_id}/retry")).json()
    await worker.work(new["run_id"])
    assert (await get(gateway, new["run_id"]))["output"] == "Done."


async def test_a_message_goes_to_the_run_under_way_and_to_no_other(gateway: Gateway, worker: Worker) -> None:
    thread_id = await gateway.thread()
    path = f"/api/agent/{thread_id}/message"
    assert (await gateway.client.post(path, json={"content": "too early"})).status_code == 409
    run_id = await gateway.execute(thread_id, "x")
    headers = {"Idempotency-Key": "m1"}
    for _ in range(2):
        answer = await gateway.client.post(path, json={"content": "And be quick."}, headers=headers)
        assert (answer.status_code, answer.json()["run_id"]) == (200, run_id)
    await worker.work(run_id)
    assert (await get(gateway, run_id))["status"] == "succeeded"
    messages = (await gateway.client.get(f"/api/agent/{thread_id}/messages")).json()["items"]
    assert [message["content"] for message in messages] == ["x", "And be quick.", "Done."]
    assert (await gateway.client.post(path, json={"content": "too late"})).status_code == 409
    assert (await gateway.client.post(path, json={"content": "x", "run_id": run_id})).status_code == 409


async def test_a_message_that_is_sent_again_goes_to_no_second_run(gateway: Gateway, worker: Worker) -> None:
    """The answer was lost, and the run has ended since."""
    thread_id = await gateway.thread()
    path, headers = f"/api/agent/{thread_id}/message", {"Idempotency-Key": "m1"}
    first, second = await gateway.execute(thread_id, "x"), await gateway.execute(thread_id, "y")
    one = await gateway.client.post(path, json={"content": "Pay 5."}, headers=headers)
    assert one.json()["run_id"] == first
    await worker.work(first)
    again = await gateway.client.post(path, json={"content": "Pay 5."}, headers=headers)
    assert (again.status_code, again.content) == (200, one.content)
    await worker.work(second)
    messages = (await gateway.client.get(f"/api/agent/{thread_id}/messages")).json()["items"]
    assert [message["content"] for message in messages].count("Pay 5.") == 1


async def test_a_message_that_was_refused_may_be_sent_again_with_its_key(gateway: Gateway, worker: Worker) -> None:
    thread_id = await gateway.thread()
    path, headers = f"/api/agent/{thread_id}/message", {"Idempotency-Key": "m1"}
    assert (await gateway.client.post(path, json={"content": "x"}, headers=headers)).status_code == 409
    run_id = await gateway.execute(thread_id, "x")
    answer = await gateway.client.post(path, json={"content": "x"}, headers=headers)
    assert (answer.status_code, answer.json()["run_id"]) == (200, run_id)


async def test_a_thread_is_canceled_with_all_that_waits_in_it(gateway: Gateway, worker: Worker) -> None:
    thread_id = await gateway.thread()
    runs = [await gateway.execute(thread_id, "x") for _ in range(3)]
    canceled = (await gateway.client.post(f"/api/agent/{thread_id}/cancel")).json()["runs"]
    assert [(run["run_id"], run["status"]) for run in canceled] == [(run_id, "canceled") for run_id in runs]
    assert (await gateway.client.post(f"/api/agent/{thread_id}/cancel")).json()["runs"] == []


async def test_a_waiting_run_is_canceled_by_the_next_worker(gateway: Gateway, worker: Worker) -> None:
    run = await start(gateway, worker, "pause", "7")
    answer = await gateway.client.post(f"/api/runs/{run['run_id']}/cancel")
    assert (answer.json()["status"], answer.json()["cancel_requested"]) == ("pending", True)
    await worker.work(run["run_id"])
    assert (await get(gateway, run["run_id"]))["status"] == "canceled"
    [step] = await steps(gateway, run["run_id"])
    assert step["status"] == "canceled"
