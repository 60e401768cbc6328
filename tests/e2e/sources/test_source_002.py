"""AI Agents Platform: chat streams with their decision tree, durable steps, the event bus."""

import asyncio

import httpx
import pytest

from shared.types import JSON
from tests.e2e.sources.stack import BOUND_SECONDS, OPERATOR, RATE_LIMIT, Http, Stack, data_of

CHAT = "/chat/stream"
ANSWER = "t00000 t00001 t00002 "
BREAKER_SECONDS = 60


async def opened(http: Http, body: JSON) -> httpx.Response:
    """The head of a chat's answer; nobody reads on."""
    async with http.stream("POST", CHAT, json=body) as answer:
        return answer


async def test_a_chat_streams_chunks_and_ends_with_done(http: Http) -> None:
    body = {"agent": "chat", "input": "[[tokens:3]]", "session_id": "s-1"}
    lines = await http.lines("POST", CHAT, body)
    assert lines[-1] == "data: [DONE]"
    hello, *chunks, done = data_of(lines[:-1])
    assert "".join(chunk["content"] for chunk in chunks) == done["done"]["output"] == ANSWER
    again = data_of((await http.lines("POST", CHAT, {**body, "input": "[[roles]]"}))[:-1])
    assert again[0]["thread_id"] == hello["thread_id"]  # a session is one conversation
    assert again[-1]["done"]["output"] == "system user assistant user"


async def test_without_a_valid_api_key_it_is_401(http: Http) -> None:
    body = {"agent": "chat", "input": "Hello"}
    async with httpx.AsyncClient(base_url=http.stack.url) as nobody:
        assert (await nobody.post(CHAT, json=body)).status_code == 401
        for headers in ({"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}):
            assert (await nobody.post(CHAT, json=body, headers=headers)).status_code == 401


async def test_an_agent_that_the_registry_does_not_have_is_501(http: Http) -> None:
    answer = await http.expect(501, "POST", CHAT, {"agent": "nobody", "input": "Hello"})
    assert answer["code"] == "not_implemented"


async def test_beyond_its_rate_a_client_gets_429_before_its_agent_is_looked_for(stack: Stack, key: str) -> None:
    async with Http(stack, key) as admin:
        flood = (await admin.expect(201, "POST", "/api/keys", {"name": "flood", "scopes": ["read", "run"]}))["key"]
    async with Http(stack, flood) as http:
        body = {"agent": "nobody", "input": "Hello"}
        for _ in range(RATE_LIMIT):
            await http.expect(501, "POST", CHAT, body)
        refused = await http.post(CHAT, json=body)
        assert (refused.status_code, int(refused.headers["Retry-After"]) > 0) == (429, True)
        assert refused.headers["RateLimit-Policy"] == f'"execute";q={RATE_LIMIT};w=60'


async def test_while_the_models_provider_is_left_alone_it_is_503_with_retry_after(http: Http) -> None:
    body = {"name": "Ollie", "definition_id": "chat", "model": "openai/away", "activate": True}
    agent = (await http.expect(201, "POST", "/api/agents", body))["id"]
    async with asyncio.timeout(BOUND_SECONDS):
        while (refused := await opened(http, {"agent": agent, "input": "[[error:500]]"})).status_code != 503:
            assert refused.status_code == 200
            await asyncio.sleep(0.5)
    assert 0 < int(refused.headers["Retry-After"]) <= BREAKER_SECONDS
    await http.lines("POST", CHAT, {"agent": "chat", "input": "[[tokens:1]]"})  # another model's is not


@pytest.mark.slow
async def test_a_workflow_survives_its_worker_repeats_no_step_and_goes_on_with_an_event(
    http: Http, stack: Stack
) -> None:
    body = {"runnable_type": "function", "runnable_id": "news", "input": {"day": "monday"}}
    run_id = (await http.expect(201, "POST", "/runs", body))["run_id"]
    await http.until(run_id, "waiting")
    stack.kill("worker")
    await http.expect(201, "POST", "/api/events", {"name": "published", "key": "monday", "payload": {"by": "Ada"}})
    stack.start_worker()
    run = await http.until(run_id)
    assert (run["status"], run["output"]) == ("succeeded", ["news of monday", {"by": "Ada"}])
    steps = (await http.expect(200, "GET", f"/api/runs/{run_id}/steps"))["items"]
    assert (steps[0]["name"], steps[0]["tries"], steps[0]["status"]) == ("fetch", 1, "succeeded")
    events = data_of(await http.lines("GET", f"/api/runs/{run_id}/events"))
    assert [event["type"] for event in events].count("step.completed") == 2


async def test_an_event_that_came_before_is_found_by_who_waits_later(http: Http) -> None:
    await http.expect(201, "POST", "/api/events", {"name": "published", "key": "tuesday", "payload": "early"})
    body = {"runnable_type": "function", "runnable_id": "news", "input": {"day": "tuesday"}}
    run = await http.until((await http.expect(201, "POST", "/api/runs", body))["run_id"])
    assert run["output"] == ["news of tuesday", "early"]


def test_authentication_is_on(stack: Stack) -> None:
    assert httpx.get(f"{stack.url}/api/agents").status_code == 401
    assert httpx.get(f"{stack.url}/api/agents", headers={"X-API-Key": OPERATOR}).status_code == 200
