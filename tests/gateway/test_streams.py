"""What a stream is made of: bytes, order, ends. The rules are those that browsers' EventSource depends on."""

import asyncio
from pathlib import Path

import pytest

from shared.config import StreamSettings
from shared.tasks import cancel
from shared.threads.types import NewEvent
from shared.types import EventType
from tests.gateway.support import (
    BRIEF,
    Gateway,
    delta,
    events_in,
    finish,
    frames_of,
    ids_in,
    serving,
    settings_for,
    until,
)

IDLE_SECONDS = 1.5


async def test_a_stream_begins_with_its_retry_time_and_the_headers_that_proxies_need(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    async with gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.headers["cache-control"] == "no-cache, no-transform"
        assert stream.headers["x-accel-buffering"] == "no"
        assert "content-length" not in stream.headers
        assert await stream.chunk() == b"retry: 1000\n\n"


async def test_waiting_is_said_once_while_nothing_has_happened(redis_url: str, tmp_path: Path) -> None:
    async with serving(settings_for(redis_url, tmp_path, stream=BRIEF)) as gateway:
        thread_id = await gateway.thread()
        body = await gateway.body_of(f"/api/agent/{thread_id}/stream")
        events = [frame.event for frame in frames_of(body)]
        assert events[0] == "waiting"
        assert set(events[1:-1]) == {"keep_alive"}


async def test_a_thread_in_which_something_happened_says_no_waiting(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    await gateway.finished_run(thread_id)
    async with gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
        assert (await stream.frames(1))[0].data["type"] == "run.queued"


async def test_the_systems_own_frames_carry_no_id_and_valid_json(redis_url: str, tmp_path: Path) -> None:
    async with serving(settings_for(redis_url, tmp_path, stream=BRIEF)) as gateway:
        thread_id = await gateway.thread()
        body = await gateway.body_of(f"/api/agent/{thread_id}/stream")
        assert ids_in(body) == []
        assert all(frame.data["type"] == frame.event for frame in frames_of(body))
        assert all(frame.data["thread_id"] == thread_id for frame in frames_of(body))


async def test_a_silent_stream_is_kept_alive_then_closed_with_408(redis_url: str, tmp_path: Path) -> None:
    async with serving(settings_for(redis_url, tmp_path, stream=BRIEF)) as gateway:
        thread_id = await gateway.thread()
        async with gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
            last = frames_of(await stream.rest())[-1]
            assert stream.ended_cleanly
            assert (last.event, last.data["status"], last.data["code"]) == ("error", 408, "stream_timeout")


async def test_a_busy_stream_is_closed_with_408_when_its_time_is_over(redis_url: str, tmp_path: Path) -> None:
    async with serving(settings_for(redis_url, tmp_path, stream=BRIEF)) as gateway:
        thread_id = await gateway.thread()
        attempt = await gateway.attempt(await gateway.execute(thread_id))

        async def work() -> None:
            while True:
                await attempt.emit([delta("x")])

        working = asyncio.create_task(work())
        frames = frames_of(await gateway.body_of(f"/api/agent/{thread_id}/stream"))
        await cancel([working])
        assert frames[-1].data["status"] == 408
        assert len(frames) > 10


async def test_what_is_not_shown_keeps_no_connection_alive(redis_url: str, tmp_path: Path) -> None:
    """A log says nothing of a model's deltas, and a proxy cuts what is silent."""
    limits = StreamSettings(keep_alive_seconds=0.1, idle_timeout_seconds=30, max_seconds=30)
    async with serving(settings_for(redis_url, tmp_path, stream=limits)) as gateway:
        run_id = await gateway.execute(await gateway.thread())
        attempt = await gateway.attempt(run_id)

        async def work() -> None:
            while True:
                await attempt.emit([delta("x")])

        async with gateway.stream(f"/api/runs/{run_id}/logs", {"accept": "text/event-stream"}) as stream:
            working = asyncio.create_task(work())
            frames = await stream.frames(5)
            await cancel([working])
        assert [frame.event for frame in frames[2:]] == ["keep_alive"] * 3


async def test_keep_alives_do_not_postpone_the_idle_limit_but_events_do(redis_url: str, tmp_path: Path) -> None:
    limits = StreamSettings(keep_alive_seconds=0.05, idle_timeout_seconds=IDLE_SECONDS, max_seconds=30)
    async with serving(settings_for(redis_url, tmp_path, stream=limits)) as gateway:
        thread_id = await gateway.thread()
        attempt = await gateway.attempt(await gateway.execute(thread_id))
        clock = asyncio.get_running_loop().time
        async with gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
            await stream.frames(6)
            emitting = clock()
            await attempt.emit([delta("x")])
            assert frames_of(await stream.rest())[-1].data["status"] == 408
            assert clock() - emitting >= IDLE_SECONDS


async def test_every_frame_is_lines_of_id_event_and_one_line_of_data(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id, "line\nline\r\nline\rend \x00\u2028 \ufeff é 漢 😀")
    await finish(await gateway.attempt(run_id))
    body = await gateway.body_of(f"/api/agent/{thread_id}/stream?run_id={run_id}")
    assert b"\r" not in body
    assert not body.startswith(b"\xef\xbb\xbf")
    assert body.startswith(b"retry: 1000\n\n")
    for raw in body.removeprefix(b"retry: 1000\n\n").removesuffix(b"\n\n").split(b"\n\n"):
        assert [line.split(b": ", 1)[0] for line in raw.split(b"\n")] == [b"id", b"event", b"data"]
    assert frames_of(body)[0].data["data"]["task"] == "line\nline\r\nline\rend \x00\u2028 \ufeff é 漢 😀"


async def test_the_thread_endpoint_names_events_as_its_source_does(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id)
    attempt = await gateway.attempt(run_id)
    await attempt.emit([NewEvent("plan", {"steps": []}), NewEvent(EventType.LOG, {"message": "m"})])
    await finish(attempt)
    of_thread = frames_of(await gateway.body_of(f"/api/agent/{thread_id}/stream?run_id={run_id}"))
    of_run = frames_of(await gateway.body_of(f"/api/runs/{run_id}/events", {"accept": "text/event-stream"}))
    types = ["run.queued", "run.started", "plan", "log", "run.completed"]
    assert [frame.event for frame in of_thread] == [
        "plan" if kind == "plan" else "task_agent_execute" for kind in types
    ]
    assert [frame.event for frame in of_run] == types
    assert [frame.data for frame in of_run] == [frame.data for frame in of_thread]


async def test_a_runs_stream_has_only_its_events_and_ends_cleanly_with_its_end(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    first = await gateway.execute(thread_id, "first")
    second = await gateway.execute(thread_id, "second")
    async with gateway.stream(f"/api/agent/{thread_id}/stream?run_id={first}") as stream:
        await finish(await gateway.attempt(first), 3)
        await finish(await gateway.attempt(second), 3)
        frames = frames_of(await stream.rest())
        assert stream.ended_cleanly
    assert {frame.data["run_id"] for frame in frames} == {first}
    assert frames[-1].data["type"] == "run.completed"
    later = frames_of(await gateway.body_of(f"/api/runs/{second}/events", {"accept": "text/event-stream"}))
    assert {frame.data["run_id"] for frame in later} == {second}
    assert later[0].data["type"] == "run.queued"


async def test_a_reconnect_at_the_end_of_a_finished_run_gets_204(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.finished_run(thread_id)
    for path in (f"/api/agent/{thread_id}/stream?run_id={run_id}", f"/api/runs/{run_id}/events"):
        ids = ids_in(await gateway.body_of(path, {"accept": "text/event-stream"}))
        headers = {"accept": "text/event-stream", "last-event-id": ids[-1]}
        answer = await gateway.client.get(path, headers=headers)
        assert (answer.status_code, answer.content) == (204, b"")
        one_left = await gateway.body_of(path, {**headers, "last-event-id": ids[-2]})
        assert ids_in(one_left) == ids[-1:]


async def test_an_event_source_that_reconnects_is_resumed_by_its_header_not_by_its_address(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.finished_run(thread_id)
    path = f"/api/agent/{thread_id}/stream?run_id={run_id}"
    ids = ids_in(await gateway.body_of(path))
    body = await gateway.body_of(f"{path}&last_id={ids[0]}", {"last-event-id": ids[3]})
    assert ids_in(body) == ids[4:]


async def test_a_cursor_beyond_the_end_is_told_of_the_gap_and_goes_on_from_the_end(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id)
    end = (await gateway.store.thread(thread_id)).last_id  # type: ignore[union-attr]
    async with gateway.stream(f"/api/agent/{thread_id}/stream?last_id=999999999999999-0") as stream:
        [gap] = await stream.frames(1)
        assert (gap.event, gap.id) == ("gap", None)
        assert (gap.data["after"], gap.data["until"]) == ("999999999999999-0", end)
        await gateway.attempt(run_id)
        assert (await stream.frames(1))[0].data["type"] == "run.started"


async def test_events_that_were_trimmed_away_are_told_of_as_a_gap(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    await gateway.finished_run(thread_id)
    await gateway.redis.xtrim(f"thread:{{{thread_id}}}:stream", maxlen=0)
    end = (await gateway.store.thread(thread_id)).last_id  # type: ignore[union-attr]
    async with gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
        [gap] = await stream.frames(1)
        assert (gap.event, gap.data["after"], gap.data["until"]) == ("gap", "0-0", end)


@pytest.mark.parametrize("damage", ["wrong type", "foreign entry"])
async def test_a_stream_that_crashes_is_cut_and_not_ended(gateway: Gateway, damage: str) -> None:
    thread_id = await gateway.thread()
    await gateway.execute(thread_id)
    key = f"thread:{{{thread_id}}}:stream"
    async with gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
        await stream.frames(1)
        if damage == "wrong type":
            await gateway.redis.set(key, "not a stream")
        else:
            await gateway.redis.xadd(key, {"x": "y"})
        await gateway.redis.spublish(f"thread:{{{thread_id}}}", "0-0")
        assert await stream.rest() == b""
        assert not stream.ended_cleanly
    other = await gateway.thread()
    await gateway.finished_run(other)
    assert (await gateway.client.get(f"/api/agent/{other}")).status_code == 200


async def test_a_client_that_reads_slowly_holds_up_nobody_and_gets_everything(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id)
    attempt = await gateway.attempt(run_id)
    path = f"/api/agent/{thread_id}/stream?run_id={run_id}"
    async with gateway.stream(path) as slow, gateway.stream(path) as quick:
        quick_body = asyncio.create_task(quick.rest())
        for number in range(400):  # 12 MB: more than the sockets and the ring hold
            await attempt.emit([delta(f"{number} " + "x" * 30_000)])
        await finish(attempt)
        whole = events_in(await quick_body)
        assert len(ids_in(whole)) == 403
        assert events_in(await slow.rest()) == whole


async def test_what_nobody_follows_is_no_longer_subscribed_to(gateway: Gateway) -> None:
    thread_id = await gateway.thread()

    async def channels() -> list[str]:
        return [
            name.decode() if isinstance(name, bytes) else name for name in await gateway.redis.pubsub_shardchannels()
        ]

    async with gateway.stream(f"/api/agent/{thread_id}/stream") as stream:
        await stream.frames(1)
        assert await channels() == [f"thread:{{{thread_id}}}"]
    await until(lambda: _is_empty(channels()))


async def _is_empty(found: object) -> bool:
    return not await found  # type: ignore[misc]


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
@pytest.mark.parametrize("last", ["events", "logs"])
async def test_a_wrong_place_is_refused_even_beside_one_that_counts_before_it(
    gateway: Gateway, last: str, accept: str
) -> None:
    path = f"/api/runs/{await gateway.finished_run(await gateway.thread())}/{last}"
    headers = {"Last-Event-ID": "1-1", "Accept": accept}
    answer = await gateway.client.get(f"{path}?last_id=x", headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["place"]) == (400, "last_id")
