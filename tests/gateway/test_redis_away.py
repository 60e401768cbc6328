"""Redis goes and comes back: requests are told to come again, streams hold and go on without losing anything."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shared.config import StreamSettings
from tests.gateway.support import Gateway, delta, events_in, finish, ids_in, serving, settings_for, until
from tests.gateway.websockets import refusal, websocket
from tests.support.valkey import Valkey

QUICK_CHECKS = StreamSettings(check_seconds=0.2)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    folder = tmp_path / "valkey"
    folder.mkdir()
    valkey = Valkey(folder)
    valkey.start()
    yield valkey
    valkey.kill()


@pytest.fixture
async def gateway(valkey: Valkey, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with serving(settings_for(valkey.url, tmp_path, stream=QUICK_CHECKS)) as gateway:
        yield gateway


async def test_an_open_stream_says_so_once_and_goes_on_exactly(gateway: Gateway, valkey: Valkey) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id)
    attempt = await gateway.attempt(run_id)
    await attempt.emit([delta(str(number)) for number in range(10)])
    async with gateway.stream(f"/api/agent/{thread_id}/stream?run_id={run_id}") as stream:
        before = await stream.frames(12)
        valkey.kill()
        [error] = await stream.frames(1)
        assert (error.event, error.id, error.data["status"], error.data["code"]) == ("error", None, 503, "unavailable")
        valkey.start()
        await attempt.emit([delta(str(number)) for number in range(10)])
        await finish(attempt)
        rest = await stream.rest()
        assert stream.ended_cleanly
    assert b"event: error" not in rest
    written = [entry.id for entry in await gateway.store.events(thread_id)]
    assert [frame.id for frame in before] + ids_in(rest) == written


async def test_each_outage_is_told_of(gateway: Gateway, valkey: Valkey) -> None:
    thread_id = await gateway.thread()
    attempt = await gateway.attempt(await gateway.execute(thread_id))
    async with gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
        await stream.frames(2)
        for _ in range(3):
            valkey.kill()
            assert (await stream.frames(1))[0].data["status"] == 503
            valkey.start()
            await attempt.emit([delta("x")])
            assert (await stream.frames(1))[0].data["type"] == "agent.delta"


async def test_a_new_stream_is_opened_and_held_until_redis_is_back(gateway: Gateway, valkey: Valkey) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.finished_run(thread_id)
    path = f"/api/agent/{thread_id}/stream?run_id={run_id}"
    whole = events_in(await gateway.body_of(path))
    valkey.kill()
    async with gateway.stream(path) as stream:
        assert stream.status == 200
        assert (await stream.frames(1))[0].data["status"] == 503
        valkey.start()
        assert events_in(await stream.rest()) == whole
        assert stream.ended_cleanly


async def test_a_new_stream_of_what_turns_out_not_to_exist_ends_with_404(gateway: Gateway, valkey: Valkey) -> None:
    run_id = await gateway.execute(await gateway.thread())
    unknown = run_id[:-1] + ("0" if run_id[-1] != "0" else "1")
    valkey.kill()
    async with gateway.stream(f"/api/runs/{unknown}/events", {"accept": "text/event-stream"}) as stream:
        assert (await stream.frames(1))[0].data["status"] == 503
        valkey.start()
        [error] = await stream.frames(1)
        assert (error.event, error.data["status"], error.data["code"]) == ("error", 404, "not_found")
        await stream.rest()
        assert stream.ended_cleanly


async def test_a_new_stream_at_the_end_of_a_finished_run_ends_once_that_is_known(
    gateway: Gateway, valkey: Valkey
) -> None:
    run_id = await gateway.finished_run(await gateway.thread())
    headers = {"accept": "text/event-stream"}
    path = f"/api/runs/{run_id}/events"
    headers["last-event-id"] = ids_in(await gateway.body_of(path, headers))[-1]
    valkey.kill()
    async with gateway.stream(path, headers) as stream:
        assert (await stream.frames(1))[0].data["status"] == 503
        valkey.start()
        assert await stream.rest() == b""
        assert stream.ended_cleanly


async def test_requests_are_told_to_come_again(gateway: Gateway, valkey: Valkey) -> None:
    thread_id = await gateway.thread()
    valkey.kill()
    execute = await gateway.client.post(f"/api/agent/{thread_id}/execute", json={"task": "x"})
    ready = await gateway.client.get("/health/ready")
    for answer in (execute, ready):
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["code"] == "unavailable"
    health = await gateway.client.get("/health")
    assert (health.status_code, health.json()["redis"]["status"]) == (503, "unavailable")
    assert (await gateway.client.get("/health/live")).status_code == 200
    valkey.start()
    assert (await gateway.client.get("/health/ready")).status_code == 200
    await gateway.execute(thread_id)


async def test_a_request_rides_over_a_short_absence(gateway: Gateway, valkey: Valkey) -> None:
    thread_id = await gateway.thread()
    valkey.kill()
    valkey.start()
    await gateway.execute(thread_id)


async def test_a_redis_that_hangs_is_away_too(gateway: Gateway, valkey: Valkey) -> None:
    thread_id = await gateway.thread()
    attempt = await gateway.attempt(await gateway.execute(thread_id))
    async with gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
        await stream.frames(2)
        valkey.freeze()
        assert (await stream.frames(1))[0].data["status"] == 503
        valkey.thaw()
        await attempt.emit([delta("x")])
        assert (await stream.frames(1))[0].data["type"] == "agent.delta"


async def test_a_lost_subscriber_connection_loses_no_event(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    attempt = await gateway.attempt(await gateway.execute(thread_id))
    async with gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
        await stream.frames(2)
        for _ in range(5):
            assert await gateway.redis.client_kill_filter(_type="pubsub")
            await attempt.emit([delta("x")])
            assert (await stream.frames(1))[0].data["type"] == "agent.delta"
            await until(lambda: _subscribed(gateway))


async def _subscribed(gateway: Gateway) -> bool:
    return bool(await gateway.redis.pubsub_shardchannels())


async def test_an_event_whose_message_never_came_is_found_by_the_next_check(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    await gateway.execute(thread_id)
    async with gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
        await stream.frames(1)
        event = {"e": '{"type":"log","data":{}}', "t": "log", "r": "r"}
        await gateway.redis.xadd(f"thread:{{{thread_id}}}:stream", event)  # type: ignore[arg-type]
        assert (await stream.frames(1))[0].data["type"] == "log"


async def test_a_redis_that_forgot_the_end_of_a_stream_shows_as_a_gap(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path, durable=False)
    valkey.start()
    try:
        async with serving(settings_for(valkey.url, tmp_path, stream=QUICK_CHECKS)) as gateway:
            thread_id = await gateway.thread()
            await gateway.execute(thread_id)
            async with gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
                [seen] = await stream.frames(1)
                valkey.kill()
                valkey.start()
                frames = await stream.frames(1)
                if frames[0].event == "error":
                    frames = await stream.frames(1)
                assert (frames[0].event, frames[0].data["after"]) == ("gap", seen.id)
    finally:
        valkey.kill()


async def test_a_websocket_says_so_once_and_goes_on_exactly(gateway: Gateway, valkey: Valkey) -> None:
    thread_id = await gateway.thread()
    attempt = await gateway.attempt(await gateway.execute(thread_id))
    async with websocket(gateway, f"/ws/agent/{thread_id}") as client:
        before = await client.take(2)
        valkey.kill()
        outage = await client.next()
        assert (outage["type"], outage["status"], outage["code"]) == ("error", 503, "unavailable")
        refused = await client.ask(type="cancel", id=1)
        assert (refused["status"], refused["id"]) == (503, 1)
        valkey.start()
        await attempt.emit([delta("x")])
        after = [await client.until(type="event")]
    written = [entry.id for entry in await gateway.store.events(thread_id)]
    assert [each["id"] for each in before + after] == written


@pytest.mark.slow
async def test_a_new_websocket_is_refused_until_redis_is_back(gateway: Gateway, valkey: Valkey) -> None:
    """And opened then, though nobody but those who are refused has asked Redis for anything meanwhile."""
    path = f"/ws/agent/{await gateway.thread()}"
    valkey.kill()
    for _ in range(2):
        assert (await refusal(gateway, path))[0] == 503
    valkey.start()
    async with websocket(gateway, path) as client:
        assert (await client.next())["type"] == "waiting"
