"""Whoever joins when and wherever gets exactly the stream's entries, in order, over a fixed number of connections."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import given, settings

from gateway.stream.entries import START, Entry, Gap, Position, Source
from gateway.stream.fanout import Cursor, Fanout
from gateway.stream.feed import Feed
from shared.config import StreamSettings
from shared.ids import new_run_id, new_thread_id
from shared.redis import connect
from shared.tasks import cancel
from shared.threads.attempt import Attempt
from shared.threads.store import ThreadStore
from shared.threads.types import NewRun, NewThread
from tests.gateway.support import (
    BOUND_SECONDS,
    Gateway,
    NoArchive,
    delta,
    events_in,
    finish,
    ids_in,
    serving,
    settings_for,
    until,
)


async def test_fifty_subscribers_at_once_and_a_late_one_get_the_same_bytes(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.execute(thread_id)
    attempt = await gateway.attempt(run_id)
    path = f"/api/agent/{thread_id}/stream?run_id={run_id}"
    subscribers = [asyncio.create_task(gateway.body_of(path)) for _ in range(50)]
    await finish(attempt, 300)
    bodies = [events_in(body) for body in await asyncio.gather(*subscribers)]
    assert len(set(bodies)) == 1
    assert ids_in(bodies[0]) == [entry.id for entry in await gateway.store.events(thread_id)]
    assert events_in(await gateway.body_of(path)) == bodies[0]


async def test_a_stream_resumes_exactly_after_every_id_it_gave(redis_url: str, tmp_path: Path) -> None:
    """With a ring of ten, so that resuming begins in the ring, in a page before it, and on their border."""
    async with serving(settings_for(redis_url, tmp_path, stream=StreamSettings(ring_entries=10))) as gateway:
        thread_id = await gateway.thread()
        run_id = await gateway.execute(thread_id)
        attempt = await gateway.attempt(run_id)
        path = f"/api/agent/{thread_id}/stream?run_id={run_id}"
        async with gateway.stream(f"/api/agent/{thread_id}/stream") as keeps_the_ring:
            await keeps_the_ring.frames(2)
            await finish(attempt, 40)
            whole = events_in(await gateway.body_of(path))
            for place, last_id in enumerate(ids_in(whole)[:-1]):
                rest = events_in(await gateway.body_of(f"{path}&last_id={last_id}"))
                assert whole.endswith(rest)
                assert len(ids_in(rest)) == len(ids_in(whole)) - place - 1


async def test_the_number_of_redis_connections_does_not_depend_on_subscribers(gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    run_id = await gateway.finished_run(thread_id, deltas=50)
    path = f"/api/agent/{thread_id}/stream"
    async with gateway.stream(path) as first:
        await first.frames(50)
        with_one = await gateway.connections()
        bodies = await asyncio.gather(*(gateway.body_of(f"{path}?run_id={run_id}") for _ in range(50)))
        assert len(set(bodies)) == 1
        leave = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            held = [tasks.create_task(_hold(gateway, path, leave)) for _ in range(50)]
            await until(lambda: all(task.get_name() == "following" for task in held))
            assert await gateway.connections() == with_one
            leave.set()


async def _hold(gateway: Gateway, path: str, leave: asyncio.Event) -> None:
    async with gateway.stream(path) as stream:
        await stream.frames(53)
        task = asyncio.current_task()
        assert task
        task.set_name("following")
        await leave.wait()


@dataclass(frozen=True)
class Joins:
    """A subscriber comes, with a cursor after this share of what there is; only one run's, or all."""

    after: float
    one_run: bool


@dataclass(frozen=True)
class Writes:
    count: int
    run: int


STEPS = st.lists(
    st.one_of(
        st.builds(Writes, count=st.integers(1, 120), run=st.integers(0, 1)),
        st.builds(Joins, after=st.floats(0, 1), one_run=st.booleans()),
    ),
    min_size=2,
    max_size=12,
)


@given(steps=STEPS, ring_entries=st.integers(1, 40))
@settings(max_examples=25)
def test_every_subscriber_gets_exactly_what_came_after_its_cursor(
    valkey_url: str, steps: Sequence[Joins | Writes], ring_entries: int
) -> None:
    asyncio.run(_play(valkey_url, steps, ring_entries))


async def test_a_page_shared_with_a_later_cursor_says_nothing_of_what_came_after_it_was_asked_for(
    valkey_url: str,
) -> None:
    binary = connect(valkey_url, timeout_seconds=5, max_connections=2, text=False)
    fanout = Fanout(binary, NoArchive(), ring_entries=10, check_seconds=5)
    feed, news = Feed(Source.of_thread(new_thread_id()), ring_entries=10), asyncio.Event()
    feed.reset((5, 0))
    early, late = (Cursor(fanout, feed, (1, 0), news.set, owners=None, project=None) for _ in range(2))
    assert early.take() == []
    new = Entry(b"6-0", (6, 0), "agent.delta", "", b"{}")
    feed.extend([new])
    assert late.take() == []
    reading = asyncio.create_task(fanout.reader.run())
    async with asyncio.timeout(BOUND_SECONDS):
        await news.wait()
    for cursor in (early, late):
        assert cursor.take() == Gap((1, 0), (5, 0)), "Redis has nothing up to where the feed ended then"
        assert cursor.take() == [new]
    await cancel([reading])
    await binary.aclose()


async def _play(url: str, steps: Sequence[Joins | Writes], ring_entries: int) -> None:
    text = connect(url, timeout_seconds=5, max_connections=10)
    binary = connect(url, timeout_seconds=5, max_connections=2, text=False)
    store = ThreadStore(text, ring_seconds=5, patience_seconds=5)
    fanout = Fanout(binary, NoArchive(), ring_entries=ring_entries, check_seconds=5)
    following = asyncio.create_task(fanout.run())
    try:
        await _play_steps(store, fanout, await _attempt(store), steps)
    finally:
        following.cancel()
        await asyncio.wait({following})
        await text.aclose()
        await binary.aclose()


async def _attempt(store: ThreadStore) -> Attempt:
    thread_id = new_thread_id()
    await store.create_thread(NewThread(thread_id, "w"))
    run_id = new_run_id(thread_id)
    await store.submit(NewRun(run_id, "w", {}), queued={})
    attempt = await store.claim(run_id, "w", "op")
    assert attempt is not None
    return attempt


async def _play_steps(store: ThreadStore, fanout: Fanout, attempt: Attempt, steps: Sequence[Joins | Writes]) -> None:
    thread_id, numbers, joined = attempt.run.thread_id, count(), []
    other_run = new_run_id(thread_id)
    for step in steps:
        written = [entry.id for entry in await store.events(thread_id, count=10_000)]
        match step:
            case Writes():
                if step.run:
                    await store.submit(NewRun(other_run, "w", {}), queued={})
                await attempt.emit([delta(str(next(numbers))) for _ in range(step.count)])
            case Joins():
                place = round(step.after * len(written))
                after = written[place - 1] if place else "0-0"
                only = attempt.run.id if step.one_run else None
                task = asyncio.create_task(_subscribe(fanout, thread_id, after, only))
                joined.append((after, only, task))
    await finish(attempt)
    entries = await store.events(thread_id, count=10_000)
    for after, only, task in joined:
        expected = [e.id for e in entries if _position(e.id) > _position(after) and only in (None, e.run_id)]
        async with asyncio.timeout(BOUND_SECONDS):
            assert await task == expected


async def _subscribe(fanout: Fanout, thread_id: str, after: str, run_id: str | None) -> list[str]:
    """Ids of all entries until the run's end."""
    news, found = asyncio.Event(), list[Entry]()
    owners = None if run_id is None else {run_id}
    cursor = await fanout.follow(Source.of_thread(thread_id), _position(after), news.set, owners=owners)
    while not found or not found[-1].ends_run:
        taken = cursor.take()
        assert not isinstance(taken, Gap)
        found += taken
        if not taken:
            await news.wait()
            news.clear()
    cursor.close()
    return [entry.id.decode() for entry in found]


def _position(stream_id: str) -> Position:
    ms, _, sequence = stream_id.partition("-")
    return (int(ms), int(sequence)) if stream_id != "0-0" else START
