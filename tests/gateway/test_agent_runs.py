"""Runs of agents: what they carry, who is refused one, and how a chat reads them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shared import keys
from shared.config import LlmSettings, RateLimitSettings
from shared.threads.types import NewEvent, Run
from shared.types import AGENT_HOOKS, JSON, RunStatus
from shared.workers.catalogue import DefinitionCard
from tests.gateway.support import Gateway, delta, finish, serving, settings_for, until
from tests.gateway.test_agents import HOOKED, made, tell
from tests.support.archive import House
from tests.support.databases import put_database


@pytest.fixture
async def agents(gateway: Gateway) -> Gateway:
    await tell(gateway, HOOKED)
    return gateway


async def run_of(gateway: Gateway, run_id: str) -> Run:
    run = await gateway.store.run(run_id)
    assert run is not None
    return run


async def test_a_run_carries_its_agent_as_it_is_then(agents: Gateway) -> None:
    given = {"prompt": "You file.", "model": "gpt-bare", "tools": ["ls"], "limits": {"max_turns": 7}, "activate": True}
    agent = await made(agents, definition_id="reviewer", **given)
    opened = await agents.client.post("/api/agent/initiate", json={"agent_id": agent["id"]})
    thread_id = opened.json()["thread_id"]
    run_id = await agents.execute(thread_id, parameters={"max_turns": 2})
    await agents.client.patch(f"/api/agents/{agent['id']}", json={"prompt": "You shred."})
    run = await run_of(agents, run_id)
    assert run.definition == {
        "agent_id": agent["id"],
        "project": None,
        "definition": "reviewer",
        "version": 2,
        "prompt": "You file.",
        "sandbox": True,
        "parameters": {"model": "gpt-bare", "tools": ["ls"], "max_turns": 7},
    }
    assert run.options == {"model": "gpt-bare", "tools": ["ls"], "max_turns": 2}
    assert run.runnable_id == agent["id"]
    assert (await agents.client.get(f"/api/agent/{thread_id}")).json()["agent_id"] == agent["id"]
    later = await run_of(agents, await agents.execute(thread_id))
    assert later.definition is not None
    assert later.definition["prompt"] == "You shred."


async def test_a_run_may_name_an_agent_a_kind_of_agents_or_leave_it_to_its_thread(agents: Gateway) -> None:
    agent = await made(agents, definition_id="chat", activate=True)
    body: JSON = {"runnable_type": "agent", "input": {"task": "x"}}
    by_id = (await agents.client.post("/api/runs", json={**body, "runnable_id": agent["id"]})).json()
    by_kind = (await agents.client.post("/api/runs", json={**body, "runnable_id": "coder"})).json()
    opened = (await agents.client.post("/api/agent/initiate", json={"agentId": "chat"})).json()
    by_thread = (await agents.client.post("/api/runs", json={**body, "thread_id": opened["thread_id"]})).json()
    assert [run["runnable_id"] for run in (by_id, by_kind, by_thread)] == [agent["id"], "coder", "chat"]
    found = [(await run_of(agents, run["run_id"])).definition or {} for run in (by_id, by_kind, by_thread)]
    assert [(each["agent_id"], each["definition"]) for each in found] == [
        (agent["id"], "chat"),
        (None, "coder"),
        (None, "chat"),
    ]
    for path, unknown in (
        ("/api/runs", {**body, "runnable_id": "clerk"}),
        ("/api/agent/initiate", {"agent_id": "clerk"}),
    ):
        assert (await agents.client.post(path, json=unknown)).status_code == 404


async def test_a_retry_and_a_fork_carry_the_same_agent(agents: Gateway) -> None:
    opened = (await agents.client.post("/api/agent/initiate", json={"agent_id": "coder"})).json()
    run_id = await agents.execute(opened["thread_id"])
    attempt = await agents.attempt(run_id)
    await attempt.end(RunStatus.FAILED, {"error": {}}, {"error": {"code": "model_error", "detail": "x"}})
    first = await run_of(agents, run_id)
    for path in (f"/api/runs/{run_id}/retry", f"/api/runs/{run_id}/fork"):
        again = (await agents.client.post(path)).json()
        assert (await run_of(agents, again["run_id"])).definition == first.definition
        thread = (await agents.client.get(f"/api/agent/{again['thread_id']}")).json()
        assert thread["agent_id"] == "coder"


@pytest.mark.parametrize("move", [None, "deactivate", "shutdown"])
async def test_an_agent_that_is_not_active_takes_no_runs(agents: Gateway, move: str | None) -> None:
    agent = await made(agents, activate=move is not None)
    opened = (await agents.client.post("/api/agent/initiate", json={"agent_id": agent["id"]})).json()
    if move:
        await agents.client.post(f"/api/agents/{agent['id']}/{move}")
    answer = await agents.client.post(f"/api/agent/{opened['thread_id']}/execute", json={"task": "x"})
    assert (answer.status_code, "it takes no runs" in answer.text) == (409, True)


async def test_the_same_request_gets_its_run_again_though_the_agent_rests_by_now(agents: Gateway) -> None:
    agent = await made(agents, activate=True)
    body = {"runnable_id": agent["id"], "input": {"task": "x"}}
    headers = {"Idempotency-Key": "r-1"}
    first = await agents.client.post("/api/runs", json=body, headers=headers)
    await agents.client.post(f"/api/agents/{agent['id']}/deactivate")
    assert (await agents.client.post("/api/runs", json=body, headers=headers)).json() == first.json()


async def test_hooks_are_called_by_runs_in_one_thread_and_the_agent_takes_runs_once_they_succeeded(
    agents: Gateway,
) -> None:
    agent = await made(agents, definition_id="hooked", activate=True, metadata={"m": 1})
    path, first = f"/api/agents/{agent['id']}", agent["hooks"]["run_id"]
    body = {"runnable_id": agent["id"], "input": {"task": "x"}}
    hook = await run_of(agents, first)
    assert (hook.runnable_id, agent["hooks"]["status"]) == (AGENT_HOOKS, "pending")
    assert hook.input is not None
    assert hook.input["input"]["hooks"] == ["initialize", "activate"]
    assert hook.input["input"]["agent"]["metadata"] == {"m": 1}
    early = await agents.client.post("/api/runs", json=body)
    assert (early.status_code, "still being activated" in early.text) == (409, True)
    await (await agents.attempt(first)).end(RunStatus.SUCCEEDED, {"output": None}, {"output": None})
    assert (await agents.client.post("/api/runs", json=body)).status_code == 201
    for move, hooks in (("deactivate", ["deactivate"]), ("activate", ["activate"]), ("shutdown", ["shutdown"])):
        moved = (await agents.client.post(f"{path}/{move}")).json()
        run = await run_of(agents, moved["hooks"]["run_id"])
        assert run.input is not None
        assert (run.input["input"]["hooks"], run.thread_id) == (hooks, hook.thread_id)


async def test_an_agent_goes_on_when_the_thread_of_its_hooks_was_deleted(agents: Gateway) -> None:
    agent = await made(agents, definition_id="hooked", activate=True)
    path, first = f"/api/agents/{agent['id']}", agent["hooks"]["run_id"]
    await (await agents.attempt(first)).end(RunStatus.SUCCEEDED, {"output": None}, {"output": None})
    deleted = await agents.client.delete(f"/api/agent/{first.partition('.')[0]}")
    assert deleted.status_code == 204
    moved = await agents.client.post(f"{path}/deactivate")
    assert moved.status_code == 200, moved.text
    run = await run_of(agents, moved.json()["hooks"]["run_id"])
    assert run.input is not None
    assert run.input["input"]["hooks"] == ["deactivate"]


async def test_hooks_that_failed_are_retried_when_the_agent_is_activated_again(agents: Gateway) -> None:
    agent = await made(agents, definition_id="hooked", activate=True)
    attempt = await agents.attempt(agent["hooks"]["run_id"])
    await attempt.end(RunStatus.FAILED, {"error": {}}, {"error": {"code": "step_failed", "detail": "x"}})
    refused = await agents.client.post("/api/runs", json={"runnable_id": agent["id"], "input": {"task": "x"}})
    assert (refused.status_code, "could not be activated" in refused.text) == (409, True)
    again = (await agents.client.post(f"/api/agents/{agent['id']}/activate")).json()
    run = await run_of(agents, again["hooks"]["run_id"])
    assert run.retried_from == agent["hooks"]["run_id"]
    assert again["version"] == agent["version"] + 1


async def test_an_agent_that_was_never_active_has_no_hooks_to_call_at_its_end(agents: Gateway) -> None:
    agent = await made(agents, definition_id="hooked")
    gone = (await agents.client.post(f"/api/agents/{agent['id']}/shutdown")).json()
    assert (gone["status"], gone["hooks"]) == ("shutdown", None)


async def test_a_gateway_that_died_before_it_submitted_the_hooks_has_them_submitted_by_the_next_one(
    agents: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_: Any, **__: Any) -> None:
        raise RuntimeError("the gateway dies here")

    agent = await made(agents, definition_id="hooked")
    monkeypatch.setattr("gateway.agents.moves.submit_hooks", die)
    assert (await agents.client.post(f"/api/agents/{agent['id']}/activate")).status_code == 500
    monkeypatch.undo()
    left = (await agents.client.get(f"/api/agents/{agent['id']}")).json()
    assert (left["status"], left["hooks"]["status"]) == ("active", None)
    await agents.client.post(f"/api/agents/{agent['id']}/activate")
    assert (await run_of(agents, left["hooks"]["run_id"])).runnable_id == AGENT_HOOKS


async def test_clients_cannot_run_the_functions_that_call_hooks(agents: Gateway) -> None:
    body = {"runnable_type": "function", "runnable_id": AGENT_HOOKS, "input": {}}
    assert (await agents.client.post("/api/runs", json=body)).status_code == 400


class Chat:
    """An open answer of POST /chat/stream, chunk by chunk."""

    def __init__(self, lines: AsyncIterator[str], status: int, headers: Any) -> None:
        self._lines = lines
        self.status = status
        self.headers = headers

    async def next(self) -> Any:
        async for line in self._lines:
            if line.startswith("data: "):
                text = line.removeprefix("data: ")
                return text if text == "[DONE]" else json.loads(text)
        return None

    async def rest(self) -> list[Any]:
        found = []
        while (chunk := await self.next()) is not None:
            found.append(chunk)
        return found


@asynccontextmanager
async def chatting(gateway: Gateway, path: str = "/api/chat/stream", **body: Any) -> AsyncIterator[Chat]:
    async with gateway.client.stream("POST", path, json={"agent": "chat", "input": "Hi", **body}) as answer:
        yield Chat(answer.aiter_lines(), answer.status_code, answer.headers)


@pytest.mark.parametrize("path", ["/chat/stream", "/api/chat/stream", "/api/v1/chat/stream"])
async def test_a_chat_is_a_run_whose_text_comes_in_chunks_and_then_done(agents: Gateway, path: str) -> None:
    async with chatting(agents, path) as chat:
        hello = await chat.next()
        assert chat.headers["content-type"].startswith("text/event-stream")
        attempt = await agents.attempt(hello["run_id"])
        await attempt.emit([delta("Hel"), delta("lo")])
        assert [await chat.next(), await chat.next()] == [{"content": "Hel"}, {"content": "lo"}]
        await attempt.end(RunStatus.SUCCEEDED, {"output": "Hello"}, {"output": "Hello"})
        assert await chat.rest() == [{"done": {"output": "Hello"}}, "[DONE]"]
    run = await run_of(agents, hello["run_id"])
    assert (run.input, (run.definition or {})["definition"]) == ({"task": "Hi"}, "chat")


async def test_text_that_became_void_is_replaced(agents: Gateway) -> None:
    async with chatting(agents) as chat:
        attempt = await agents.attempt((await chat.next())["run_id"])
        again = NewEvent("agent.request", {"model": "m", "try": 2, "cause": "cut off"}, 2)
        second = NewEvent("agent.delta", {"text": "Bad"}, 2)
        await attempt.emit([delta("Good. "), second, again])
        await attempt.end(RunStatus.FAILED, {"error": {"code": "model_error", "detail": "x"}}, {})
        error = {"error": {"code": "model_error", "detail": "x"}}
        expected = [{"content": "Good. "}, {"content": "Bad"}, {"replace": "Good. "}, error, "[DONE]"]
        assert await chat.rest() == expected


async def test_a_sessions_questions_are_one_conversation_and_anothers_are_not(agents: Gateway) -> None:
    threads = []
    for session_id in ("s-1", "s-1", "s-2", None, None):
        async with chatting(agents, session_id=session_id) as chat:
            hello = await chat.next()
            threads.append(hello["thread_id"])
            assert hello["session_id"] == session_id
    assert threads[0] == threads[1]
    assert len(set(threads)) == 4


async def test_a_session_whose_thread_was_deleted_begins_anew(agents: Gateway) -> None:
    threads = []
    for _ in range(3):
        async with chatting(agents, session_id="s") as chat:
            threads.append((await chat.next())["thread_id"])
        if len(threads) == 1:
            await agents.client.post(f"/api/agent/{threads[0]}/cancel")
            assert (await agents.client.delete(f"/api/agent/{threads[0]}")).status_code == 204
    assert threads[0] != threads[1] == threads[2]


async def test_a_chat_that_is_sent_again_is_the_same_one_whatever_its_agent_is_now(agents: Gateway) -> None:
    agent = (await made(agents, definition_id="chat", activate=True))["id"]
    agents.client.headers["Idempotency-Key"] = "k"
    hellos = []
    for _ in range(2):
        async with chatting(agents, agent=agent) as chat:
            assert chat.status == 200
            hellos.append(await chat.next())
        await agents.client.post(f"/api/agents/{agent}/shutdown")
    assert hellos[0] == hellos[1]


async def test_the_decision_tree_of_a_chat(redis_url: str, tmp_path: Path) -> None:
    put_database(tmp_path)
    limits = RateLimitSettings(max_requests=3)
    settings = settings_for(redis_url, tmp_path, rate_limit=limits, llm=LlmSettings(model="openai/gpt-x"))
    async with serving(settings) as gateway:
        await tell(gateway, DefinitionCard("own", "Has a model of its own.", "code", model="openai/other"))

        async def ask(agent: str = "chat", **headers: str) -> Any:
            body = {"agent": agent, "input": "Hi"}
            return await gateway.client.post("/chat/stream", json=body, headers=headers)

        assert (await ask(authorization="Bearer wrong")).status_code == 401
        unknown = await ask("clerk")
        assert (unknown.status_code, unknown.json()["code"]) == (501, "not_implemented")
        await gateway.redis.hset(keys.breaker("openai/gpt-x"), "away_until", str(2**43))
        held = await ask()
        assert (held.status_code, int(held.headers["retry-after"]) > 0) == (503, True)
        async with chatting(gateway, agent="own") as chat:
            assert chat.status == 200
        full = await ask()
        assert (full.status_code, "retry-after" in full.headers) == (429, True)


async def test_a_client_that_leaves_gives_its_place_back_and_the_run_goes_on(agents: Gateway) -> None:
    async with chatting(agents) as chat:
        run_id = (await chat.next())["run_id"]
        assert len(await agents.redis.keys("streams:*")) == 1
    await until(lambda: _none_open(agents))
    assert (await run_of(agents, run_id)).status is RunStatus.PENDING


async def _none_open(gateway: Gateway) -> bool:
    return not await gateway.redis.keys("streams:*")


async def test_a_run_that_was_evicted_is_the_answer_whatever_its_agent_is_now(
    agents: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("shared.threads.store", "shared.history.reads"):
        monkeypatch.setattr(f"{module}.YOUNG_MS", -1000)  # as after half a minute
    agent = (await made(agents, definition_id="chat", activate=True))["id"]
    opened = await agents.client.post("/api/agent/initiate", json={"agent_id": agent})
    paths: dict[str, JSON] = {
        f"/api/agent/{opened.json()['thread_id']}/execute": {"task": "x"},
        "/api/runs": {"runnable_type": "agent", "runnable_id": agent, "input": {"task": "x"}},
    }
    house = House(agents.redis, agents.app.state.services.db)
    first = {}
    for path, body in paths.items():
        answer = await agents.client.post(path, json=body, headers={"Idempotency-Key": path})
        first[path] = answer.json()["run_id"]
        await finish(await agents.attempt(first[path]))
    await house.evict()
    assert (await agents.client.post(f"/api/agents/{agent}/shutdown")).status_code == 200
    await agents.client.delete(f"/api/agents/{agent}")
    for path, body in paths.items():
        again = await agents.client.post(path, json=body, headers={"Idempotency-Key": path})
        assert again.is_success, again.text
        assert again.json()["run_id"] == first[path]
        assert (await agents.client.get(f"/api/runs/{first[path]}")).json()["status"] == "succeeded"
