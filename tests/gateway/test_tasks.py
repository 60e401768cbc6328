"""Tasks over HTTP: work with a name, whose status is that of its last run."""

import asyncio
from typing import Any

import pytest

from shared.types import JSON, RunStatus
from tests.gateway.support import Gateway, finish
from tests.gateway.test_agents import made, tell
from tests.gateway.test_teams import catalogue

__all__ = ["catalogue"]


async def a_task(gateway: Gateway, **fields: Any) -> JSON:
    answer = await gateway.client.post("/api/tasks/", json={"name": "Report", **fields})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("root", ["/api/tasks", "/api/v1/tasks/", "/tasks/"])
async def test_a_task_is_made_read_changed_and_deleted(catalogue: Gateway, root: str) -> None:
    body = {"name": "Report", "description": "Sum it up.", "runnable_id": "coder", "parameters": {"max_turns": 3}}
    made_task = await catalogue.client.post(root, json=body)
    task = made_task.json()
    assert (made_task.status_code, task["status"], task["last_run_id"], task["version"]) == (201, "pending", None, 1)
    path = f"/api/tasks/{task['id']}"
    assert (await catalogue.client.get(path)).json() == task
    given = {"task": "x"}
    changed = await catalogue.client.patch(path, json={"description": None, "input_variables": given})
    assert (changed.json()["description"], changed.json()["input"], changed.headers["etag"]) == ("", given, '"2"')
    assert (await catalogue.client.patch(path, json={"name": "R", "expected_version": 1})).status_code == 409
    [listed] = (await catalogue.client.get(f"{root}?runnable_type=agent")).json()["items"]
    assert listed == changed.json()
    assert (await catalogue.client.get(f"{root}?runnable_type=team")).json()["items"] == []
    assert (await catalogue.client.delete(path)).status_code == 204
    assert (await catalogue.client.get(path)).status_code == 404


async def test_a_tasks_status_is_its_last_runs(catalogue: Gateway) -> None:
    task = await a_task(catalogue, description="Sum it up.", parameters={"max_turns": 3, "max_cost": 1})
    path = f"/api/tasks/{task['id']}"
    first = (await catalogue.client.post(f"{path}/runs", headers={"Idempotency-Key": "k"})).json()
    assert (first["task_id"], first["input"], first["runnable_type"]) == (task["id"], {"task": "Sum it up."}, "agent")
    attempt = await catalogue.attempt(first["run_id"])
    running = (await catalogue.client.get(path)).json()
    assert (running["status"], running["last_run_id"], running["version"]) == ("running", first["run_id"], 1)
    await finish(attempt)
    assert (await catalogue.client.get(path)).json()["status"] == "succeeded"

    body = {"task_id": task["id"], "input_variables": {"task": "Only Monday."}, "parameters": {"max_turns": 9}}
    second = (await catalogue.client.post("/api/runs", json=body)).json()
    assert second["input"] == {"task": "Only Monday."}
    assert second["parameters"] == {"max_turns": 9, "max_cost": 1}
    runs = (await catalogue.client.get(f"{path}/runs")).json()["items"]
    assert [run["run_id"] for run in runs] == [second["run_id"], first["run_id"]]
    again = (await catalogue.client.post(f"{path}/runs", headers={"Idempotency-Key": "k"})).json()
    assert again["run_id"] == first["run_id"]
    listed = (await catalogue.client.get("/api/tasks")).json()["items"]
    assert [(each["status"], each["last_run_id"]) for each in listed] == [("pending", second["run_id"])]


async def test_a_retry_of_a_tasks_run_is_its_last_run(gateway: Gateway) -> None:
    await tell(gateway)
    task = await a_task(gateway, input="Do it.")
    run = (await gateway.client.post(f"/api/tasks/{task['id']}/runs")).json()
    await (await gateway.attempt(run["run_id"])).end(RunStatus.FAILED, {"error": {}}, {"error": {}})
    again = (await gateway.client.post(f"/api/runs/{run['run_id']}/retry")).json()
    now = (await gateway.client.get(f"/api/tasks/{task['id']}")).json()
    assert (again["task_id"], now["last_run_id"], now["status"]) == (task["id"], again["run_id"], "pending")


async def test_a_functions_task_gives_it_its_input(gateway: Gateway) -> None:
    task = await a_task(gateway, runnable_type="function", runnable_id="fulfil", input=[1])
    run = (await gateway.client.post(f"/api/tasks/{task['id']}/runs", json={})).json()
    assert (run["runnable_id"], run["input"]) == ("fulfil", {"input": [1]})


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"runnable_type": "function"}, "body"),
        ({"runnable_type": "function", "runnable_id": "trunkline.tool_trial"}, "body"),
        ({"runnable_id": "nobody"}, "body.runnable_id"),
        ({"runnable_type": "team", "runnable_id": "x"}, "body.runnable_id"),
        ({"runnable_type": "workflow"}, "body.runnable_id"),
        ({"runnable_type": "wish"}, "body.runnable_type"),
        ({"input": {"topic": "x"}}, "body.topic"),
        ({"parameters": {"max_turns": 0}}, "body.parameters.max_turns"),
    ],
)
async def test_a_task_that_could_not_be_done_is_refused(gateway: Gateway, wrong: JSON, place: str) -> None:
    await tell(gateway)
    answer = await gateway.client.post("/api/tasks", json={"name": "Report", **wrong})
    assert answer.status_code == 400
    assert place in [error["place"] for error in answer.json()["errors"]]


async def test_runs_of_teams_are_refused_and_their_tasks_kept(gateway: Gateway) -> None:
    await tell(gateway)
    leader = (await made(gateway))["id"]
    team = (await gateway.client.post("/api/teams", json={"name": "T", "leader_agent_id": leader})).json()
    task = await a_task(gateway, runnable_type="team", runnable_id=team["id"])
    refused = await gateway.client.post(f"/api/tasks/{task['id']}/runs")
    assert (refused.status_code, refused.json()["code"]) == (501, "not_implemented")


async def test_a_run_is_of_a_task_or_of_what_it_names(gateway: Gateway) -> None:
    await tell(gateway)
    task = await a_task(gateway)
    both = await gateway.client.post("/api/runs", json={"task_id": task["id"], "runnable_id": "coder"})
    assert (both.status_code, both.json()["errors"][0]["place"]) == (400, "body.runnable_id")
    assert (await gateway.client.post("/api/runs", json={"task_id": "t"})).status_code == 404


async def test_two_changes_at_once_never_make_what_each_alone_would_be_refused(catalogue: Gateway) -> None:
    """A function's run heeds no model."""
    a, b = {"runnable_type": "function", "runnable_id": "f"}, {"parameters": {"model": "openai/gpt-bare"}}
    for _ in range(8):
        path = f"/api/tasks/{(await a_task(catalogue))['id']}"
        answers = await asyncio.gather(*(catalogue.client.patch(path, json=body) for body in (a, b)))
        assert sorted(answer.status_code for answer in answers) in ([200, 400], [200, 409])
        kept = (await catalogue.client.get(path)).json()
        assert (kept["runnable_type"] == "agent") is bool(kept["parameters"])
