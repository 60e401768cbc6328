"""MGX: agents of definitions and workspaces, contexts, messages, WebSockets; tasks and runs at the root; health."""

import httpx
import pytest

from shared.types import JSON
from tests.e2e.sources.stack import OPERATOR, Http, Stack
from tests.gateway.websockets import Client

EVENTS = ("agent_status_changed", "agent_activity", "agent_message", "agent_context_updated")


async def made(http: Http, **fields: object) -> str:
    body = {"definition_id": "my_agent", "name": "Max", **fields}
    return str((await http.expect(201, "POST", "/api/agents", body))["id"])


async def settled(http: Http, agent_id: str) -> None:
    """The hooks of its last move have run."""
    hooks = (await http.expect(200, "GET", f"/api/agents/{agent_id}"))["hooks"]
    assert (await http.until(hooks["run_id"]))["status"] == "succeeded"


async def told_until_last(socket: Client) -> list[JSON]:
    """The events up to the message that says `last`."""
    told = [await socket.until(type="event")]
    while told[-1]["data"]["data"].get("message", {}).get("content") != "last":
        told.append(await socket.until(type="event"))
    return told


async def test_the_root_tells_what_is_here_and_the_documentation_is_served(http: Http) -> None:
    assert (await http.expect(200, "GET", "/"))["name"] == "Trunkline"
    for page in ("/docs", "/redoc", "/openapi.json"):
        assert (await http.get(page)).status_code == 200


@pytest.mark.parametrize("path", ["/health/", "/health/ready", "/health/live"])
async def test_health_is_for_everybody(stack: Stack, path: str) -> None:
    async with httpx.AsyncClient(base_url=stack.url) as nobody:
        answer = await nobody.get(path)
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


async def test_health_in_detail_is_for_those_who_run_it(stack: Stack, http: Http) -> None:
    async with Http(stack, OPERATOR) as operator:
        assert (await operator.expect(200, "GET", "/health/status"))["workers"]["alive"] == 1
    await http.expect(403, "GET", "/health/status")


async def test_definitions_are_built_in_or_a_users_own(http: Http) -> None:
    found = (await http.expect(200, "GET", "/api/agents/definitions"))["items"]
    described = {definition["id"]: definition["description"] for definition in found}
    assert described["my_agent"] == "My custom agent"
    assert {"builder", "reviewer"} <= described.keys()


async def test_an_instance_lives_from_its_definition_to_its_shutdown(http: Http) -> None:
    agent_id = await made(http)
    path = f"/api/agents/{agent_id}"
    assert (await http.expect(200, "GET", path))["status"] == "inactive"
    named = await http.expect(200, "PATCH", path, {"name": "Maxine", "temperature": 0.3})
    assert (named["name"], named["temperature"]) == ("Maxine", 0.3)
    assert (await http.expect(200, "POST", f"{path}/activate"))["status"] == "active"
    await settled(http, agent_id)
    assert (await http.expect(200, "POST", f"{path}/deactivate"))["status"] == "inactive"
    assert (await http.expect(200, "PATCH", path, {"status": "active"}))["status"] == "active"
    assert (await http.expect(200, "POST", f"{path}/shutdown"))["status"] == "shutdown"
    await http.expect(409, "POST", f"{path}/activate")
    listed = (await http.expect(200, "GET", "/api/agents?status=shutdown"))["items"]
    assert agent_id in [agent["id"] for agent in listed]


async def test_a_workspace_is_selected_by_header_or_query_and_sees_its_own_agents_only(stack: Stack) -> None:
    own = stack.workspace("selected")
    async with Http(stack, OPERATOR) as operator:
        by_id, by_slug = {"X_Workspace_Id": own["id"]}, {"X_Workspace_Slug": "selected"}
        agent = await operator.expect(201, "POST", "/api/agents", {"name": "A"}, **by_id)
        for query, headers in (
            ("", by_id),
            ("", by_slug),
            (f"?workspace_id={own['id']}", {}),
            ("?workspace_slug=selected", {}),
        ):
            listed = (await operator.expect(200, "GET", f"/api/agents{query}", **headers))["items"]
            assert [item["id"] for item in listed] == [agent["id"]]
        await operator.expect(404, "GET", f"/api/agents/{agent['id']}")
        await operator.expect(404, "GET", "/api/agents?workspace_slug=nobodys")


async def test_a_context_can_be_read_before_it_is_written_in_versions_and_rolled_back(http: Http) -> None:
    path = f"/api/agents/{await made(http)}/context"
    assert (await http.expect(200, "GET", f"{path}?context_name=default"))["data"] == {}
    first = await http.expect(201, "POST", path, {"data": {"goal": "ship"}, "note": "Updated by API"})
    second = await http.expect(201, "POST", path, {"data": {"goal": "sell"}, "expected_version": first["version"]})
    await http.expect(409, "POST", path, {"data": {}, "expected_version": first["version"]})
    back = await http.expect(201, "POST", f"{path}/rollback", {"version": first["version"]})
    assert (back["data"], back["restored_version"]) == ({"goal": "ship"}, first["version"])
    versions = (await http.expect(200, "GET", f"{path}/versions"))["items"]
    assert [version["version"] for version in versions] == [each["version"] for each in (back, second, first)]


async def test_messages_are_kept_and_paged_by_skip_and_limit(http: Http) -> None:
    path = f"/api/agents/{await made(http)}/messages"
    for number in range(3):
        await http.expect(201, "POST", path, {"content": f"m{number}"})
    page = await http.expect(200, "GET", f"{path}?skip=1&limit=1")
    assert [message["content"] for message in page["items"]] == ["m1"]


async def test_websockets_tell_every_event_by_name_of_one_agent_or_of_those_that_are_named(http: Http) -> None:
    mine, other = await made(http), await made(http)
    workspace = (await http.expect(200, "GET", "/api/workspaces"))["items"][0]["id"]
    listed = f"/ws/agents/stream?workspace_id={workspace}&agent_id={mine},{other}"
    async with http.websocket(f"/ws/agents/{mine}") as one, http.websocket(listed) as both:
        await http.expect(201, "POST", f"/api/agents/{other}/messages", {"content": "aside"})
        await http.expect(200, "POST", f"/api/agents/{mine}/activate")
        await settled(http, mine)
        await http.expect(201, "POST", f"/api/agents/{mine}/context", {"data": {"a": 1}})
        run = {"runnable_type": "agent", "runnable_id": mine, "input": {"task": "[[tokens:1]]"}}
        await http.until((await http.expect(201, "POST", "/api/runs", run))["run_id"])
        await http.expect(201, "POST", f"/api/agents/{mine}/messages", {"content": "last"})
        told, told_of_both = await told_until_last(one), await told_until_last(both)
    assert {event["event"] for event in told} == set(EVENTS)
    assert {event["data"]["agent_id"] for event in told} == {mine}
    assert {event["data"]["agent_id"] for event in told_of_both} == {mine, other}


async def test_runs_at_the_root_are_listed_read_labelled_logged_and_deleted(http: Http) -> None:
    body = {"runnable_type": "agent", "input": {"task": "[[tokens:1]]"}}
    run_id = (await http.expect(201, "POST", "/runs/", body))["run_id"]
    await http.until(run_id)
    assert run_id in [run["run_id"] for run in (await http.expect(200, "GET", "/runs/"))["items"]]
    assert (await http.expect(200, "GET", f"/runs/{run_id}"))["status"] == "succeeded"
    assert (await http.expect(200, "PATCH", f"/runs/{run_id}", {"name": "first"}))["name"] == "first"
    logs = (await http.expect(200, "GET", f"/runs/{run_id}/logs"))["items"]
    assert {line["run_id"] for line in logs} == {run_id}
    await http.expect(204, "DELETE", f"/runs/{run_id}")
    await http.expect(404, "GET", f"/runs/{run_id}")


async def test_tasks_at_the_root_are_made_run_changed_and_deleted(http: Http) -> None:
    task = await http.expect(201, "POST", "/tasks/", {"name": "Report", "description": "[[tokens:1]]"})
    path = f"/tasks/{task['id']}"
    assert task["id"] in [item["id"] for item in (await http.expect(200, "GET", "/tasks/"))["items"]]
    run_id = (await http.expect(201, "POST", "/runs/", {"task_id": task["id"]}))["run_id"]
    assert (await http.until(run_id))["output"] == "t00000 "
    assert [run["run_id"] for run in (await http.expect(200, "GET", f"/runs/?task_id={task['id']}"))["items"]] == [
        run_id
    ]
    done = await http.expect(200, "GET", path)
    assert (done["status"], done["last_run_id"]) == ("succeeded", run_id)
    assert (await http.expect(200, "PATCH", path, {"name": "Reports"}))["name"] == "Reports"
    await http.expect(204, "DELETE", path)
    await http.expect(404, "GET", path)
