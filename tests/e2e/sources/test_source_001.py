"""Gateway, modem, workflow: threads that are initiated, executed in and streamed, and the flow streams before them."""

import httpx
import pytest

from tests.e2e.sources.stack import OPERATOR, Http, Stack, data_of

TASK = 'Plan it. [[tool:todo_write {"todos": [{"content": "bake"}]}]] [[tokens:4]]'
ANSWER = "t00000 t00001 t00002 t00003 "


@pytest.fixture(scope="module")
def key(stack: Stack) -> str:
    """This design has no workspaces."""
    return OPERATOR


async def initiated(http: Http, **body: object) -> str:
    opened = await http.expect(200, "POST", "/api/agent/initiate", body)
    assert opened["status"] == "active"
    return str(opened["thread_id"])


async def test_a_thread_is_initiated_executed_in_and_streamed(http: Http) -> None:
    thread_id = await initiated(http)
    path = f"/api/agent/{thread_id}"
    accepted = await http.expect(200, "POST", f"{path}/execute", {"task": TASK, "user_uuid": "user-7"})
    assert (accepted["thread_id"], accepted["status"]) == (thread_id, "pending")
    run_id = accepted["run_id"]
    lines = await http.lines("GET", f"{path}/stream?run_id={run_id}")
    named = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert set(named) - {"waiting", "keep_alive"} == {"task_agent_execute", "todo"}  # a tool's own event has its name
    events = [event for event in data_of(lines) if "run_id" in event and event["type"] != "waiting"]
    assert [events[0]["type"], events[-1]["type"]] == ["run.queued", "run.completed"]
    assert events[-1]["data"]["output"] == ANSWER
    run = await http.until(run_id)
    assert (run["status"], run["user_uuid"]) == ("succeeded", "user-7")
    ids = [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]
    rest = await http.lines("GET", f"{path}/stream?run_id={run_id}&last_id={ids[-2]}")
    assert [event["type"] for event in data_of(rest)] == ["run.completed"]


async def test_a_stream_says_waiting_until_something_happens(http: Http) -> None:
    thread_id = await initiated(http)
    async with http.stream("GET", f"/api/agent/{thread_id}/stream") as answer:
        lines = (line async for line in answer.aiter_lines() if line.startswith("event: "))
        assert await anext(lines) == "event: waiting"
        await http.expect(200, "POST", f"/api/agent/{thread_id}/execute", {"task": "[[tokens:1]]"})
        assert await anext(lines) == "event: task_agent_execute"


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_a_flows_stream_waits_for_its_thread_and_tells_all_of_it(http: Http, prefix: str) -> None:
    pair = {"flowUuid": f"flow{prefix}", "flowInputUuid": "input-1"}
    async with http.stream("GET", f"{prefix}/agent/event-stream", params=pair) as answer:
        lines = (line async for line in answer.aiter_lines() if line)
        assert "event: waiting" in [await anext(lines), await anext(lines)]
        thread_id = await initiated(http, **pair)
        await http.expect(200, "POST", f"/api/agent/{thread_id}/execute", {"task": "[[tokens:1]]"})
        found = [await anext(line async for line in lines if line.startswith("id: "))]
    again = {**pair, "last_id": found[0].removeprefix("id: ")}
    async with http.stream("GET", f"{prefix}/agent/event-stream", params=again) as answer:
        resumed = await anext(line async for line in answer.aiter_lines() if line.startswith("data: "))
    assert data_of([resumed])[0]["type"] != "run.queued"
    for blank in ({"flowUuid": "flow"}, {**pair, "flowInputUuid": " "}):
        assert (await http.get(f"{prefix}/agent/event-stream", params=blank)).status_code == 400


async def test_what_is_wrong_is_answered_by_the_documents_statuses(http: Http) -> None:
    thread_id = await initiated(http)
    await http.expect(400, "POST", f"/api/agent/{thread_id}/execute", {})
    await http.expect(404, "POST", "/api/agent/nobodys/execute", {"task": "x"})
    await http.expect(404, "GET", "/api/agent/nobodys/stream")
    async with httpx.AsyncClient(base_url=http.stack.url) as nobody:
        assert (await nobody.post("/api/agent/initiate")).status_code == 401


async def test_health_tells_of_redis_the_services_and_the_configuration(http: Http) -> None:
    health = await http.expect(200, "GET", "/health")
    parts = {name: health[name]["status"] for name in ("redis", "queue", "workers", "database", "config")}
    assert (health["status"], set(parts.values())) == ("ok", {"ok"})


async def test_a_thread_lies_in_redis_under_the_documents_keys(http: Http, stack: Stack) -> None:
    thread_id = await initiated(http)
    run_id = (await http.expect(200, "POST", f"/api/agent/{thread_id}/execute", {"task": "[[tokens:1]]"}))["run_id"]
    await http.until(run_id)
    named = ("metadata", "stream", "runs", f"run:{run_id}")
    with stack.redis() as redis:  # the braces are Redis Cluster's hash tag
        assert [redis.type(f"thread:{{{thread_id}}}:{name}") for name in named] == ["hash", "stream", "zset", "hash"]
