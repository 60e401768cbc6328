"""AgentMesh: projects, agents, tools and workflows in camelCase; runs, steps, human approval, events."""

import pytest

from shared.types import JSON
from tests.e2e.sources.stack import Http, data_of


@pytest.fixture
async def project(http: Http) -> str:
    listed = (await http.expect(200, "GET", "/api/projects"))["items"]
    made = listed[0] if listed else await http.expect(201, "POST", "/api/projects", {"name": "Mesh"})
    return str(made["id"])


async def agent(http: Http, project: str, **fields: object) -> JSON:
    body = {
        "projectId": project,
        "name": "Reviewer",
        "description": "Reads",
        "modelProvider": "openai",
        "modelName": "scripted",
        "systemPrompt": "You review.",
        "temperature": 0.2,
        "tools": [],
        "metadata": {"team": "a"},
    }
    return dict(await http.expect(201, "POST", "/api/agents", {**body, **fields}))


async def tool(http: Http, project: str) -> JSON:
    body = {
        "projectId": project,
        "name": "weather",
        "description": "Tells the weather",
        "type": "http",
        "config": {"method": "GET", "url": "http://weather.example/now", "headers": {"X-Of": "mesh"}},
        "inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "outputSchema": {"type": "object"},
    }
    return dict(await http.expect(201, "POST", "/api/tools", body))


def graph(agent_id: str, tool_id: str) -> JSON:
    """All types of nodes."""
    nodes = [
        {"id": "start", "type": "start", "label": "Start", "config": {}},
        {"id": "ask", "type": "agent", "label": "Ask", "agentId": agent_id, "config": {}},
        {"id": "judge", "type": "branch", "label": "Good?", "config": {}},
        {"id": "look", "type": "tool", "label": "Look", "toolId": tool_id, "config": {}},
        {"id": "sign", "type": "human_approval", "label": "Sign", "config": {"instructions": "Is it good?"}},
        {"id": "end", "type": "end", "label": "End", "config": {}},
    ]
    ends = [("start", "ask"), ("ask", "judge"), ("judge", "look"), ("judge", "sign"), ("look", "end"), ("sign", "end")]
    edges: list[JSON] = [
        {"id": f"e{number}", "fromNodeId": start, "toNodeId": end} for number, (start, end) in enumerate(ends)
    ]
    edges[2]["condition"] = "context.last_output.score > 0.7"
    return {"nodes": nodes, "edges": edges}


async def test_an_agent_of_a_project_is_made_listed_and_runs(http: Http, project: str) -> None:
    made = await agent(http, project)
    assert (made["project_id"], made["prompt"], made["metadata"]) == (project, "You review.", {"team": "a"})
    assert (made["model_provider"], made["model_name"], made["temperature"]) == ("openai", "scripted", 0.2)
    listed = (await http.expect(200, "GET", f"/api/agents?projectId={project}"))["items"]
    assert made["id"] in [item["id"] for item in listed]
    await http.expect(404, "POST", "/api/agents", {"name": "A", "projectId": "nobodys"})
    run = {"runnable_type": "agent", "runnable_id": made["id"], "input": {"task": "[[roles]]"}}
    done = await http.until((await http.expect(201, "POST", "/api/runs", run))["run_id"])
    assert (done["status"], done["output"]) == ("succeeded", "system user")
    local = await agent(http, project, modelProvider="local", modelName="llama")
    assert local["model_name"] == "llama"


async def test_a_tool_has_a_type_a_config_and_schemas(http: Http, project: str) -> None:
    made = await tool(http, project)
    assert (made["project_id"], made["type"], made["config"]["method"]) == (project, "http", "GET")
    assert made["input_schema"]["required"] == ["city"]
    listed = (await http.expect(200, "GET", f"/api/tools?projectId={project}"))["items"]
    assert [item["id"] for item in listed] == [made["id"]]
    await http.expect(204, "DELETE", f"/api/tools/{made['id']}")


async def test_a_workflow_is_made_read_replaced_and_judged(http: Http, project: str) -> None:
    of_agent, of_tool = await agent(http, project), await tool(http, project)
    body = {"projectId": project, "name": "Review", "graph": graph(of_agent["id"], of_tool["id"])}
    made = await http.expect(201, "POST", "/api/workflows", body)
    path = f"/api/workflows/{made['id']}"
    kept = (await http.expect(200, "GET", path))["graph"]
    assert [node["type"] for node in kept["nodes"]] == ["start", "agent", "branch", "tool", "human_approval", "end"]
    assert (kept["nodes"][1]["agent_id"], kept["edges"][2]["from_node_id"]) == (of_agent["id"], "judge")
    replaced = await http.expect(200, "PUT", path, {**body, "name": "Review 2"})
    assert (replaced["name"], replaced["version"]) == ("Review 2", 2)
    cyclic = graph(of_agent["id"], of_tool["id"])
    cyclic["edges"].append({"id": "back", "fromNodeId": "look", "toNodeId": "ask"})
    await http.expect(400, "POST", "/api/workflows", {**body, "graph": cyclic})
    for listing, expected in ((project, [made["id"]]), ("another", [])):
        found = (await http.expect(200, "GET", f"/api/workflows?projectId={listing}"))["items"]
        assert [item["id"] for item in found] == expected
    assert (await http.expect(200, "GET", f"{path}/runs"))["items"] == []
    await http.expect(204, "DELETE", path)
    await http.expect(204, "DELETE", f"/api/tools/{of_tool['id']}")


async def test_a_run_waits_for_a_human_goes_on_with_the_answer_and_tells_each_step(http: Http) -> None:
    body = {"runnable_type": "function", "runnable_id": "release", "input": {"version": "v2"}}
    run_id = (await http.expect(201, "POST", "/api/runs", body))["run_id"]
    await http.until(run_id, "waiting")
    built, asked = (await http.expect(200, "GET", f"/api/runs/{run_id}/steps"))["items"]
    assert (built["status"], built["output"], asked["status"]) == ("succeeded", "v2 is built", "waiting_human")
    assert asked["wait"]["request"] == {"instructions": "May it go out?"}
    await http.expect(200, "POST", f"/api/steps/{asked['step_id']}/human-complete", {"output": {"approved": True}})
    run = await http.until(run_id)
    assert (run["status"], run["output"]) == ("succeeded", ["v2 is built", {"approved": True}])
    await http.expect(409, "POST", f"/api/steps/{asked['step_id']}/human-complete", {"output": "late"})
    lines = await http.lines("GET", f"/api/runs/{run_id}/events")
    named = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    wanted = ["run.started", "step.started", "step.completed", "step.started", "step.waiting_human"]
    wanted += ["step.completed", "run.completed"]
    assert [name for name in named if name in wanted] == wanted
    assert {event["run_id"] for event in data_of(lines) if "run_id" in event} == {run_id}


async def test_agents_and_tools_tell_of_requests_and_responses(http: Http) -> None:
    task = '[[tool:todo_write {"todos": [{"content": "read"}]}]] [[tokens:1]]'
    run = await http.expect(201, "POST", "/api/runs", {"runnable_type": "agent", "input": {"task": task}})
    lines = await http.lines("GET", f"/api/runs/{run['run_id']}/events")
    assert {"agent.request", "agent.response", "tool.request", "tool.response"} <= {
        line.removeprefix("event: ") for line in lines if line.startswith("event: ")
    }


async def test_a_run_is_canceled(http: Http) -> None:
    body = {"runnable_type": "function", "runnable_id": "release", "input": {"version": "v3"}}
    run_id = (await http.expect(201, "POST", "/api/runs", body))["run_id"]
    await http.until(run_id, "waiting")
    await http.expect(200, "POST", f"/api/runs/{run_id}/cancel")
    assert (await http.until(run_id))["status"] == "canceled"
