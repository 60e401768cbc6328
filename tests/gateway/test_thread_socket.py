"""A thread over a WebSocket, both ways."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.stream.ws import MAX_REFUSED, CloseCode
from shared.config import ApiSettings, RateLimitSettings, StreamSettings
from shared.threads.attempt import Change
from shared.threads.steps import StepRecord, Wait
from shared.threads.types import NewEvent
from shared.types import JSON, StepStatus, WaitKind
from tests.gateway.support import BRIEF, KEY, Gateway, delta, finish, frames_of, serving, settings_for, until
from tests.gateway.websockets import refusal, websocket

PREFIXES = ("", "/api", "/api/v1")


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_it_tells_what_the_threads_event_stream_tells(gateway: Gateway, prefix: str) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id)
    attempt = await gateway.attempt(run_id)
    await attempt.emit([NewEvent("plan", {"steps": []}), delta("é 漢 😀")])
    await finish(attempt, 3)
    streamed = frames_of(await gateway.body_of(f"/api/agent/{thread_id}/stream?run_id={run_id}"))
    async with websocket(gateway, f"{prefix}/ws/agent/{thread_id}") as client:
        told = await client.take(len(streamed))
    assert [(each["id"], each["event"], each["data"]) for each in told] == [
        (frame.id, frame.event, frame.data) for frame in streamed
    ]
    assert {each["type"] for each in told} == {"event"}


async def test_it_resumes_exactly_after_every_id_it_gave(redis_url: str, tmp_path: Path) -> None:
    async with serving(settings_for(redis_url, tmp_path, stream=StreamSettings(ring_entries=4))) as gateway:
        thread_id = await gateway.thread()
        await gateway.finished_run(thread_id, deltas=7)
        async with websocket(gateway, f"/ws/agent/{thread_id}") as whole:
            ids = [each["id"] for each in await whole.take(10)]
        for place, last_id in enumerate(ids[:-1]):
            async with websocket(gateway, f"/ws/agent/{thread_id}?last_id={last_id}") as client:
                assert [each["id"] for each in await client.take(9 - place)] == ids[place + 1 :]


async def test_it_waits_is_kept_alive_and_ends_with_its_time(redis_url: str, tmp_path: Path) -> None:
    """However idle it is until then: somebody may be thinking about what to say."""
    async with serving(settings_for(redis_url, tmp_path, stream=BRIEF)) as gateway:
        thread_id = await gateway.thread()
        began = asyncio.get_running_loop().time()
        async with websocket(gateway, f"/ws/agent/{thread_id}") as client:
            assert await client.next() == {"type": "waiting", "thread_id": thread_id, "run_id": None}
            assert (await client.next())["type"] == "keep_alive"
            last = await client.until(type="error")
            assert (last["status"], last["code"]) == (408, "stream_timeout")
            assert await client.close_code() == CloseCode.TIMEOUT
        assert asyncio.get_running_loop().time() - began >= BRIEF.max_seconds


async def test_a_gap_is_announced(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    await gateway.finished_run(thread_id)
    await gateway.redis.xtrim(f"thread:{{{thread_id}}}:stream", maxlen=0)
    async with websocket(gateway, f"/ws/agent/{thread_id}") as client:
        gap = await client.next()
    assert (gap["type"], gap["after"]) == ("gap", "0-0")


async def test_a_task_is_executed_followed_and_answered_over_one_socket(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    async with websocket(gateway, f"/ws/agent/{thread_id}") as client:
        answer = await client.ask(type="execute", id="q1", task="say hi", parameters={"max_turns": 3})
        assert (answer["type"], answer["id"]) == ("answer", "q1")
        run_id = answer["data"]["run_id"]
        assert answer["data"]["status"] == "pending"
        run = await gateway.store.run(run_id)
        assert run
        assert (run.input["task"], run.parameters) == ("say hi", {"max_turns": 3})  # type: ignore[index]
        attempt = await gateway.attempt(run_id)
        told = await client.ask(type="message", id=2, content="and be brief")
        assert told["data"]["run_id"] == run_id
        assert [message["content"] for message in await gateway.store.inbox(run_id, 0)] == ["and be brief"]
        attempt.taken = 1
        canceled = await client.ask(type="cancel")
        assert [each["run_id"] for each in canceled["data"]["runs"]] == [run_id]
        assert canceled["data"]["runs"][0]["cancel_requested"]


async def test_a_frame_that_is_sent_again_with_its_key_is_done_once(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    async with websocket(gateway, f"/ws/agent/{thread_id}") as client:
        frame = {"type": "execute", "task": "once", "idempotency_key": "k-1"}
        first, second = await client.ask(**frame), await client.ask(**frame, id=7)
        assert first["data"] == second["data"]
        other = await client.ask(**{**frame, "task": "twice"})
        assert (other["status"], other["code"]) == (409, "idempotency_conflict")
    over_http = await gateway.client.post(
        f"/api/agent/{thread_id}/execute", json={"task": "once"}, headers={"Idempotency-Key": "k-1"}
    )
    assert over_http.json() == first["data"]
    assert await gateway.store.run_ids(thread_id) == [first["data"]["run_id"]]


async def test_a_human_step_is_answered_over_the_socket(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id)
    step_id = await waiting_step(gateway, run_id)
    other = await gateway.thread()
    async with websocket(gateway, f"/ws/agent/{other}") as client:
        assert (await client.ask(type="approve", step_id=step_id, output=1))["status"] == 404
    async with websocket(gateway, f"/ws/agent/{thread_id}") as client:
        resolved = await client.ask(type="approve", step_id=step_id, **{"as": "done"})
        assert resolved["status"] == 409, "it waits for an approval, not for an outcome"
        answer = await client.ask(type="approve", id="a", step_id=step_id, output={"approved": True})
        assert answer["data"]["output"] == {"approved": True}
        again = await client.ask(type="approve", id="b", step_id=step_id, output={"approved": False})
        assert (again["status"], again["code"], again["id"]) == (409, "conflict", "b")


async def waiting_step(gateway: Gateway, run_id: str) -> str:
    attempt = await gateway.attempt(run_id)
    wait = Wait(WaitKind.HUMAN, request={"question": "?"})
    record = StepRecord("approve:x", 1, "x", "wait", StepStatus.WAITING_HUMAN, "h", wait=wait)
    await attempt.commit(Change(steps=[record]))
    await attempt.wait([record])
    return f"{run_id}.1"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{", "body"),
        ("[]", "body"),
        ('"execute"', "body"),
        ("{}", "body.type"),
        ('{"type": 5}', "body.type"),
        ('{"type": "dance"}', "body.type"),
        ('{"type": "execute", "id": {}, "task": "x"}', "body.id.str"),
        ('{"type": "execute", "tusk": "x"}', "body.task"),
        ('{"type": "execute", "task": " "}', "body.task"),
        ('{"type": "cancel", "why": "x"}', "body.why"),
        ('{"type": "approve"}', "body.step_id"),
        ('{"type": "message", "content": NaN}', "body"),
        ('{"type": "execute", "task": "\\ud800"}', "body"),
    ],
)
async def test_what_is_wrong_with_a_frame_is_said_and_the_socket_stays_open(
    gateway: Gateway, text: str, place: str
) -> None:
    thread_id = await gateway.thread()
    async with websocket(gateway, f"/ws/agent/{thread_id}") as client:
        await client.socket.send_str(text)
        error = await client.until(type="error")
        assert error["status"] == 400
        assert place in {each["place"] for each in error["errors"]}
        assert (await client.ask(type="execute", task="x"))["type"] == "answer"


async def test_a_frame_that_is_too_large_is_refused_and_not_read(redis_url: str, tmp_path: Path) -> None:
    async with serving(settings_for(redis_url, tmp_path, api=ApiSettings(max_body_bytes=2000))) as gateway:
        thread_id = await gateway.thread()
        async with websocket(gateway, f"/ws/agent/{thread_id}") as client:
            error = await client.ask(type="execute", task="x" * 2000)
            assert (error["status"], error["code"]) == (413, "payload_too_large")
            assert (await client.ask(type="execute", task="x"))["type"] == "answer"


async def test_too_many_refused_frames_end_it(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    async with websocket(gateway, f"/ws/agent/{thread_id}") as client:
        for _ in range(MAX_REFUSED + 1):
            await client.socket.send_str("{")
        assert await client.close_code() == CloseCode.TOO_MANY


async def test_a_binary_frame_ends_it(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    async with websocket(gateway, f"/ws/agent/{thread_id}") as client:
        await client.socket.send_bytes(b"{}")
        assert await client.close_code() == CloseCode.BINARY


async def test_frames_count_as_the_requests_that_they_stand_for(redis_url: str, tmp_path: Path) -> None:
    limits = RateLimitSettings(max_requests=1000, execute=2)
    async with serving(settings_for(redis_url, tmp_path, rate_limit=limits)) as gateway:
        thread_id = await gateway.thread()
        await gateway.execute(thread_id)
        async with websocket(gateway, f"/ws/agent/{thread_id}") as client:
            assert (await client.ask(type="execute", task="x"))["type"] == "answer"
            error = await client.ask(type="execute", task="y")
            assert (error["status"], error["code"]) == (429, "rate_limited")
            assert error["retry_after"] >= 1
            assert (await client.ask(type="cancel"))["type"] == "answer"


@pytest.mark.parametrize(
    "wrong", ["{", "[]", '{"type": 1}', '{"type": "nonsense"}', '{"type": "cancel", "x": 1}', '{"type": "approve"}']
)
async def test_frames_that_are_wrong_count_too(redis_url: str, tmp_path: Path, wrong: str) -> None:
    limits = RateLimitSettings(max_requests=1000, signal=3)
    async with (
        serving(settings_for(redis_url, tmp_path, rate_limit=limits)) as gateway,
        websocket(gateway, f"/ws/agent/{await gateway.thread()}") as client,
    ):
        statuses = []
        for _ in range(4):
            await client.socket.send_str(wrong)
            statuses.append((await client.until(type="error"))["status"])
    assert statuses == [400, 400, 400, 429]


async def test_a_client_that_takes_nothing_is_dropped_and_resumes(redis_url: str, tmp_path: Path) -> None:
    """What it has got by then stays good: it goes on after the last of it, and misses nothing."""
    limits = StreamSettings(slow_seconds=2)
    async with serving(settings_for(redis_url, tmp_path, stream=limits)) as gateway:
        thread_id = await gateway.thread()
        attempt = await gateway.attempt(await gateway.execute(thread_id))
        async with websocket(gateway, f"/ws/agent/{thread_id}", max_msg_size=0) as client:
            connection: Any = client.socket._response.connection
            transport = connection.transport
            first = await client.next()
            transport.pause_reading()
            for number in range(600):  # 18 MB: more than the sockets hold
                await attempt.emit([delta(f"{number} " + "x" * 30_000)])
            await finish(attempt)
            await until(lambda: _closed(gateway))
            transport.resume_reading()
            told, code = await rest_of(client.socket)
        assert code == CloseCode.TOO_SLOW
        ids = [first["id"], *(each["id"] for each in told)]
        written = [entry.id for entry in await gateway.store.events(thread_id)]
        assert ids == written[: len(ids)]
        assert len(ids) < len(written)
        async with websocket(gateway, f"/ws/agent/{thread_id}?last_id={ids[-1]}") as again:
            assert [each["id"] for each in await again.take(len(written) - len(ids))] == written[len(ids) :]


async def rest_of(socket: aiohttp.ClientWebSocketResponse) -> tuple[list[JSON], int | None]:
    found = []
    async with asyncio.timeout(30):
        async for message in socket:
            found.append(message.json())
    return found, socket.close_code


def _closed(gateway: Gateway) -> bool:
    """Whether the gateway follows no thread any more."""
    return not gateway.app.state.services.streams.fanout._feeds


@pytest.mark.parametrize(
    "path", ["/ws/agent/{other}", "/ws/agent/nonsense", "/ws/runs/nonsense/logs", "/ws/agent/a/b", "/ws", "/api/agent"]
)
async def test_what_is_not_there_is_404_before_it_opens(gateway: Gateway, path: str) -> None:
    status, document = await refusal(gateway, path.format(other="0" * 26))
    assert (status, document["code"]) == (404, "not_found")


async def test_a_thread_of_another_workspace_is_not_there(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id)
    await gateway.redis.hset(f"thread:{{{thread_id}}}:metadata", "workspace", "theirs")
    await gateway.redis.hset(f"thread:{{{thread_id}}}:run:{run_id}", "workspace", "theirs")
    for path in (f"/ws/agent/{thread_id}", f"/ws/runs/{run_id}/logs", "/ws/agents/stream?workspace_id=theirs"):
        assert (await refusal(gateway, path))[0] == 404


async def test_a_wrong_last_id_is_400_before_it_opens(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    assert (await refusal(gateway, f"/ws/agent/{thread_id}?last_id=x"))[0] == 400


async def test_it_needs_a_key_or_a_ticket(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    path = f"/ws/agent/{thread_id}"
    assert (await refusal(gateway, path, {}))[0] == 401
    assert (await refusal(gateway, path, {"x-api-key": "wrong"}))[0] == 401
    assert (await refusal(gateway, f"{path}?ticket=wrong", {}))[0] == 401
    ticket = (await gateway.client.post("/api/stream-tickets")).json()["ticket"]
    foreign_page = {"origin": "https://elsewhere.example"}
    for address, headers in ((path, {"x-api-key": KEY}), (f"{path}?ticket={ticket}", foreign_page)):
        async with websocket(gateway, address, headers) as client:
            assert (await client.next())["type"] == "waiting"


async def test_a_cookie_opens_it_for_the_gateways_own_pages_only(gateway: Gateway) -> None:
    """A browser sends the cookie from any page, and no CORS rule holds for WebSockets."""
    thread_id = await gateway.thread()
    auth = gateway.app.state.services.auth
    cookie = {"cookie": f"{auth.cookie_name}={auth.cookie_of('default')}"}
    own = {**cookie, "origin": f"http://127.0.0.1:{gateway.port}"}
    async with websocket(gateway, f"/ws/agent/{thread_id}", own) as client:
        assert (await client.next())["type"] == "waiting"
    for foreign in ({}, {"origin": "https://elsewhere.example"}, {"origin": "null"}):
        assert (await refusal(gateway, f"/ws/agent/{thread_id}", {**cookie, **foreign}))[0] == 403


async def test_open_sockets_count_as_open_streams(redis_url: str, tmp_path: Path) -> None:
    async with serving(settings_for(redis_url, tmp_path, stream=StreamSettings(max_per_key=1))) as gateway:
        path = f"/ws/agent/{await gateway.thread()}"
        async with websocket(gateway, path) as client:
            await client.next()
            status, document = await refusal(gateway, path)
            assert (status, document["code"]) == (429, "rate_limited")

        async def opens() -> bool:
            try:
                async with websocket(gateway, path) as client:
                    return bool(await client.next())
            except aiohttp.WSServerHandshakeError:
                return False

        await until(opens)
