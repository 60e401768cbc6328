"""MindLoom: agents and teams with their configs, runs with server-sent events, their logs over WebSocket."""

import pytest

from shared.types import JSON
from tests.e2e.sources.stack import Http, data_of

ANSWER = "t00000 t00001 t00002 "
AGENT = {
    "name": "Weaver",
    "description": "Weaves",
    "model_config": {"provider": "openai", "name": "scripted", "temperature": 0.5},
    "tool_config": {"tools": ["todo_write"]},
    "knowledge_config": {"source": "wiki"},
    "storage_config": {"table": "weaver"},
}


async def agent(http: Http) -> str:
    return str((await http.expect(201, "POST", "/api/v1/agents", AGENT))["id"])


def run_of(agent_id: str, task: str) -> JSON:
    return {"runnable_id": agent_id, "runnable_type": "agent", "input_variables": {"task": task}}


async def test_an_agent_is_made_changed_and_deleted_under_api_v1(http: Http) -> None:
    made = await http.expect(201, "POST", "/api/v1/agents", AGENT)
    assert (made["model_provider"], made["model_name"], made["temperature"]) == ("openai", "scripted", 0.5)
    assert (made["tools"], made["description"]) == (["todo_write"], "Weaves")
    assert (made["knowledge_config"], made["storage_config"]) == ({"source": "wiki"}, {"table": "weaver"})
    path = f"/api/v1/agents/{made['id']}"
    changed = await http.expect(200, "PATCH", path, {"model_config": {"name": "openai/other"}})
    assert (changed["model"], changed["created_at"]) == ("openai/other", made["created_at"])
    assert changed["updated_at"] > made["updated_at"]
    unknown = {**AGENT, "model_config": {"provider": "nobody", "name": "m"}}
    assert (await http.expect(400, "POST", "/api/v1/agents", unknown))["code"] == "invalid_request"
    await http.expect(200, "POST", f"{path}/deactivate")
    await http.expect(204, "DELETE", path)
    await http.expect(404, "GET", path)


async def test_a_team_has_a_leader_and_members(http: Http) -> None:
    leader, member = await agent(http), await agent(http)
    body = {
        "name": "Loom",
        "description": "Two weavers",
        "leader_agent_id": leader,
        "member_agent_ids": [member],
        "knowledge_config": {"source": "wiki"},
        "storage_config": {},
    }
    made = await http.expect(201, "POST", "/api/v1/teams", body)
    assert {name: made[name] for name in body} == body
    assert made["id"] in [team["id"] for team in (await http.expect(200, "GET", "/api/v1/teams"))["items"]]
    path = f"/api/v1/teams/{made['id']}"
    assert (await http.expect(200, "PATCH", path, {"name": "Looms"}))["name"] == "Looms"
    await http.expect(400, "POST", "/api/v1/teams", {**body, "leader_agent_id": "nobody"})
    await http.expect(204, "DELETE", path)


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
async def test_a_run_is_posted_and_its_results_stream_to_the_end(http: Http, prefix: str) -> None:
    body = run_of(await agent(http), "[[tokens:3]]")
    lines = await http.lines("POST", f"{prefix}/runs", body)
    assert not [line for line in lines if line.startswith("event:")]
    *events, end = data_of(lines)
    assert end == {"event": "end"}
    assert "".join(event["data"]["text"] for event in events if event["type"] == "agent.delta") == ANSWER
    run = await http.expect(200, "GET", f"{prefix}/runs/{events[0]['run_id']}")
    assert (run["status"], run["output"], run["error"]) == ("succeeded", ANSWER, None)
    assert (run["runnable_id"], run["runnable_type"]) == (body["runnable_id"], "agent")
    assert run["created_at"] <= run["started_at"] <= run["ended_at"]


async def test_runs_are_listed_by_the_documents_statuses(http: Http) -> None:
    agent_id = await agent(http)
    done = (await http.expect(201, "POST", "/api/v1/runs", run_of(agent_id, "[[tokens:1]]")))["run_id"]
    failed = (await http.expect(201, "POST", "/api/v1/runs", run_of(agent_id, "[[error:401]]")))["run_id"]
    await http.until(done)
    assert (await http.until(failed))["error"]["detail"]
    for status, expected in (("COMPLETED", [done]), ("FAILED", [failed]), ("PENDING", []), ("RUNNING", [])):
        path = f"/api/v1/runs?status={status}&agent_id={agent_id}"
        assert [run["run_id"] for run in (await http.expect(200, "GET", path))["items"]] == expected


async def test_a_runs_logs_come_over_a_websocket_that_closes_with_the_run(http: Http) -> None:
    run = await http.expect(201, "POST", "/runs", run_of(await agent(http), "[[tokens:1]]"))
    async with http.websocket(f"/ws/runs/{run['run_id']}/logs") as socket:
        line = (await socket.until(type="event"))["data"]
        assert (line["run_id"], line["level"], line["source"]) == (run["run_id"], "info", "run")
        assert await socket.close_code() == 1000
