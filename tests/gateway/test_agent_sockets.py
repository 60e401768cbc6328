"""Agent-level events over WebSockets: filters, resuming, gaps; and a run's log."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import event

from gateway.stream.entries import Gap, Source, text_of
from gateway.stream.fanout import Cursor, Fanout
from gateway.stream.ws import CloseCode
from shared import keys
from shared.channels import ChannelEvent, ChannelEventType, Channels
from shared.config import StreamSettings
from shared.db import agents
from shared.db.agents import Agent
from shared.db.tables.tenants import workspaces
from shared.ids import stream_position
from shared.redis import connect
from shared.tasks import cancel
from shared.threads.types import NewEvent
from shared.types import EventType
from tests.gateway.support import (
    BOUND_SECONDS,
    Gateway,
    NoArchive,
    delta,
    finish,
    frames_of,
    serving,
    settings_for,
    until,
)
from tests.gateway.websockets import refusal, websocket
from tests.support.databases import put_database

THEIRS = Agent("theirs", "another", "chat", "theirs", datetime.now(UTC), datetime.now(UTC))


@pytest.fixture
async def gateway(redis_url: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    """With the agents a0 to a3, and one of another workspace."""
    put_database(tmp_path)
    async with serving(settings_for(redis_url, tmp_path)) as gateway:
        now = datetime.now(UTC)
        async with gateway.app.state.services.db.begin() as c:
            await c.execute(
                workspaces.insert().values(
                    id="another", slug="another", name="W", metadata={}, created_at=now, updated_at=now, version=1
                )
            )
            for agent in (*(Agent(f"a{n}", "default", "chat", f"a{n}", now, now) for n in range(4)), THEIRS):
                await agents.add(c, agent)
        yield gateway


async def publish(gateway: Gateway, agent: str, number: int = 0, workspace: str = "default") -> str:
    channels = Channels(gateway.redis, StreamSettings())
    return await channels.publish(ChannelEvent(ChannelEventType.MESSAGE, workspace, agent, {"n": number}))


@pytest.mark.parametrize("prefix", ["", "/api", "/api/v1"])
async def test_an_agents_socket_tells_its_events_and_no_other_agents(gateway: Gateway, prefix: str) -> None:
    await publish(gateway, "a1", 0)
    async with websocket(gateway, f"{prefix}/ws/agents/a1") as client:
        first = await publish(gateway, "a1", 1)
        await publish(gateway, "a2", 2)
        await publish(gateway, "a1", 3, workspace="another")
        last = await publish(gateway, "a1", 4)
        told = await client.take(2)
    assert [each["id"] for each in told] == [first, last]
    assert told[0]["event"] == "agent_message"
    data = told[0]["data"]
    assert (data["type"], data["agent_id"], data["workspace_id"]) == ("agent_message", "a1", "default")
    assert data["data"] == {"n": 1}
    assert data["time"].endswith("Z")


async def test_the_workspaces_socket_tells_of_all_agents_or_of_those_named(gateway: Gateway) -> None:
    await publish(gateway, "a0")
    async with (
        websocket(gateway, "/ws/agents/stream?workspace_id=default") as everything,
        websocket(gateway, "/ws/agents/stream?agent_id=a1,a3") as some,
    ):
        for number, agent in enumerate(("a1", "a2", "a3")):
            await publish(gateway, agent, number)
        assert [each["data"]["agent_id"] for each in await everything.take(3)] == ["a1", "a2", "a3"]
        assert [each["data"]["agent_id"] for each in await some.take(2)] == ["a1", "a3"]


@pytest.mark.parametrize("named", ["", ",", ",".join(f"a{n}" for n in range(101))])
async def test_a_list_of_no_agents_or_too_many_is_refused(gateway: Gateway, named: str) -> None:
    status, document = await refusal(gateway, f"/ws/agents/stream?agent_id={named}")
    assert (status, document["errors"][0]["place"]) == (400, "query.agent_id")


@pytest.mark.parametrize("agent", ["theirs", "nobody", "%00", "a%C2%85b"])
async def test_an_agent_of_another_workspace_is_not_there(gateway: Gateway, agent: str) -> None:
    for path in (f"/ws/agents/{agent}", f"/ws/agents/stream?agent_id=a1,{agent}"):
        assert (await refusal(gateway, path))[0] == 404


async def test_however_many_agents_are_named_sql_is_asked_for_them_once(gateway: Gateway) -> None:
    asked: list[str] = []
    engine = gateway.app.state.services.db.engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda _, __, statement, *___: asked.append(statement))
    async with websocket(gateway, "/ws/agents/stream?agent_id=a0,a1,a2,a3"):
        pass
    assert len([statement for statement in asked if "FROM agents" in statement]) == 1


async def test_who_comes_back_gets_what_came_after_its_last_event(gateway: Gateway) -> None:
    ids = [await publish(gateway, "a1", number) for number in range(5)]
    for place, last_id in enumerate(ids[:-1]):
        async with websocket(gateway, f"/ws/agents/a1?last_id={last_id}") as client:
            assert [each["id"] for each in await client.take(4 - place)] == ids[place + 1 :]


async def test_who_comes_back_too_late_is_told_of_the_gap(gateway: Gateway) -> None:
    ids = [await publish(gateway, "a1", number) for number in range(5)]
    await gateway.redis.xtrim(keys.channel("default"), maxlen=2, approximate=False)
    async with websocket(gateway, f"/ws/agents/a1?last_id={ids[0]}") as client:
        gap = await client.next()
        assert (gap["type"], gap["workspace_id"], gap["after"]) == ("gap", "default", ids[0])
        assert [each["id"] for each in await client.take(2)] == ids[3:]
    async with websocket(gateway, f"/ws/agents/a1?last_id={ids[3]}") as client:
        assert (await client.next())["id"] == ids[4], "its last event is still there: nothing is missing"


async def test_a_workspace_keeps_its_newest_events_for_some_time_only(gateway: Gateway, redis_client: Redis) -> None:
    channels = Channels(gateway.redis, StreamSettings(agent_events=100, agent_event_seconds=60))
    for number in range(400):
        await channels.publish(ChannelEvent(ChannelEventType.ACTIVITY, "default", "a", {"n": number}))
    key = keys.channel("default")
    assert 100 <= await redis_client.xlen(key) < 300
    assert 50_000 < await redis_client.pttl(key) <= 60_000


@pytest.fixture
async def fanout(valkey_url: str) -> AsyncIterator[Fanout]:
    binary = connect(valkey_url, timeout_seconds=5, max_connections=2, text=False)
    fanout = Fanout(binary, NoArchive(), ring_entries=3, check_seconds=0.2)
    following = asyncio.create_task(fanout.run())
    yield fanout
    await cancel([following])
    await binary.aclose()


@pytest.mark.parametrize("seed", range(8))
async def test_of_a_capped_stream_each_entry_comes_once_or_is_within_a_gap(
    client: Redis, fanout: Fanout, seed: int
) -> None:
    """Whatever is trimmed, whenever, and however late the cursor looks."""
    chance = random.Random(seed)
    key, news, written, found = keys.channel("w"), asyncio.Event(), list[str](), list[str]()
    gaps: list[Gap] = []
    cursor = await fanout.follow(Source.of_agents("w"), None, news.set)
    for _ in range(30):
        written += await _publish(client, chance.randint(1, 8))
        if chance.random() < 0.4:
            await client.xtrim(key, maxlen=chance.randint(1, 6), approximate=False)
        if chance.random() < 0.2:
            await client.delete(key)  # as when it expires
        if chance.random() < 0.6:
            await _drain(cursor, found, gaps, until_id=written[-1])
    await _drain(cursor, found, gaps, until_id=written[-1])
    cursor.close()
    assert found == sorted(set(found), key=written.index)
    missing = [each for each in written if each not in found]
    assert all(any(_within(each, gap) for gap in gaps) for each in missing)
    assert not any(_within(each, gap) for each in found for gap in gaps)


async def _publish(client: Redis, count: int) -> list[str]:
    channels = Channels(client, StreamSettings())
    return [await channels.publish(ChannelEvent(ChannelEventType.ACTIVITY, "w", "a", {})) for _ in range(count)]


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("keep", [0, 1])
async def test_what_went_before_it_was_read_is_within_a_gap(
    redis_url: str, fanout: Fanout, client: Redis, *, before: int, after: int, keep: int
) -> None:
    """Of a stream with or without anything `before`: its events are trimmed or expire while nobody looks."""
    await _publish(client, before)
    news = asyncio.Event()
    cursor = await fanout.follow(Source.of_agents("w"), None, news.set)
    began = text_of(cursor.position)

    async def meanwhile() -> list[str]:
        own = connect(redis_url, timeout_seconds=5, max_connections=1)
        written = await _publish(own, 3)
        if keep:
            await own.xtrim(keys.channel("w"), maxlen=keep, approximate=False)
        else:
            await own.delete(keys.channel("w"))
        written += await _publish(own, after)
        await own.aclose()
        return written

    written = _while_nobody_looks(meanwhile)
    found, gaps = list[str](), list[Gap]()
    await _drain(cursor, found, gaps, until_id=written[-1])
    cursor.close()
    assert found == written[3 - keep :]
    assert [(text_of(gap.after), text_of(gap.until)) for gap in gaps] == [(began, written[2 - keep])]


async def test_a_stream_of_which_all_was_read_expires_without_a_gap(client: Redis, fanout: Fanout) -> None:
    [last] = await _publish(client, 1)
    cursor = await fanout.follow(Source.of_agents("w"), None, asyncio.Event().set)
    await client.delete(keys.channel("w"))
    later = await fanout.follow(Source.of_agents("w"), stream_position(last), asyncio.Event().set)
    written = await _publish(client, 2)
    for each in (cursor, later):
        found, gaps = list[str](), list[Gap]()
        await _drain(each, found, gaps, until_id=written[-1])
        each.close()
        assert (found, gaps) == (written, [])


def _while_nobody_looks(what: Callable[[], Coroutine[Any, Any, list[str]]]) -> list[str]:
    """This loop, the reader's, stands still."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(lambda: asyncio.run(what())).result(BOUND_SECONDS)


async def _drain(cursor: Cursor, found: list[str], gaps: list[Gap], *, until_id: str) -> None:
    def drained() -> bool:
        match cursor.take():
            case Gap() as gap:
                gaps.append(gap)
            case entries:
                found.extend(entry.id.decode() for entry in entries)
        return text_of(cursor.position) == until_id

    await until(drained)


def _within(entry_id: str, gap: Gap) -> bool:
    ms, _, sequence = entry_id.partition("-")
    return gap.after < (int(ms), int(sequence)) <= gap.until


async def test_a_runs_log_is_told_as_lines_until_the_run_ends(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id)
    async with websocket(gateway, f"/ws/runs/{run_id}/logs") as client:
        attempt = await gateway.attempt(run_id)
        await attempt.emit(
            [
                NewEvent(EventType.TOOL_REQUEST, {"tool_call_id": "c", "name": "bash", "arguments": {"command": "ls"}}),
                delta("not a matter of the log"),
                NewEvent(EventType.TOOL_OUTPUT, {"tool_call_id": "c", "stream": "stderr", "text": "no such file"}),
                NewEvent(EventType.LOG, {"level": "warning", "message": "careful"}),
            ]
        )
        await finish(attempt)
        told = await client.take(6)
        assert await client.close_code() == CloseCode.DONE
    assert {each["event"] for each in told} == {"log"}
    lines = [each["data"] for each in told]
    assert [(line["level"], line["source"], line["stream"], line["text"]) for line in lines] == [
        ("info", "run", None, "run queued"),
        ("info", "run", None, "run started"),
        ("info", "tool", None, 'bash {"command":"ls"}'),
        ("info", "tool", "stderr", "no such file"),
        ("warning", "log", None, "careful"),
        ("info", "run", None, "run completed"),
    ]
    for prefix in ("", "/api"):
        page = (await gateway.client.get(f"{prefix}/runs/{run_id}/logs")).json()
        assert page == {"items": lines, "next_cursor": None}
    streamed = frames_of(await gateway.body_of(f"/api/runs/{run_id}/logs", {"accept": "text/event-stream"}))
    assert [frame.data for frame in streamed] == lines


async def test_a_log_is_read_in_pages_that_miss_nothing(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id)
    attempt = await gateway.attempt(run_id)
    for number in range(7):
        await attempt.emit([delta("x"), NewEvent(EventType.LOG, {"message": f"line {number}"}), delta("x")])
    await finish(attempt)
    texts: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await gateway.client.get(f"/api/runs/{run_id}/logs?limit=4&cursor={cursor}")).json()
        texts += [line["text"] for line in page["items"]]
        cursor = page["next_cursor"]
    assert texts == ["run queued", "run started", *(f"line {number}" for number in range(7)), "run completed"]


async def test_a_finished_log_is_closed_at_once_for_whoever_has_all_of_it(redis_url: str, tmp_path: Path) -> None:
    async with serving(settings_for(redis_url, tmp_path)) as gateway:
        run_id = await gateway.finished_run(await gateway.thread())
        run = await gateway.store.run(run_id)
        assert run
        async with websocket(gateway, f"/ws/runs/{run_id}/logs?last_id={run.last_event}") as client:
            assert await client.close_code() == CloseCode.DONE


async def test_a_socket_that_only_tells_refuses_frames(gateway: Gateway) -> None:
    async with websocket(gateway, "/ws/agents/a1") as client:
        error = await client.ask(type="execute", id="x", task="y")
        assert (error["status"], error["id"]) == (400, "x")
