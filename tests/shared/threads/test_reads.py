"""What the store reads for others: several records in one round trip, one run's events among others'."""

from shared.ids import new_run_id, new_thread_id
from shared.threads.store import EVENTS_IN_ONE_READ, ThreadStore
from shared.threads.types import NewEvent, NewRun, NewThread
from shared.types import RunStatus


async def test_threads_and_runs_are_read_in_the_order_asked_without_the_unknown(store: ThreadStore) -> None:
    threads = [await store.create_thread(NewThread(new_thread_id(), "w")) for _ in range(3)]
    ids = [thread.id for thread in reversed(threads)]
    assert await store.threads([ids[0], new_thread_id(), *ids[1:]]) == threads[::-1]
    runs = [new_run_id(ids[0]) for _ in range(3)]
    for run_id in runs:
        await store.submit(NewRun(run_id, "w", {}), queued={})
    assert [run.id for run in await store.runs([runs[2], new_run_id(ids[0]), runs[0]])] == [runs[2], runs[0]]
    assert await store.threads([]) == []
    assert await store.runs([]) == []
    assert await store.run_ids(ids[0], 1, 1) == (await store.run_ids(ids[0]))[1:2]


async def test_a_runs_events_are_found_among_those_of_others(store: ThreadStore) -> None:
    thread_id = (await store.create_thread(NewThread(new_thread_id(), "w"))).id
    runs = [new_run_id(thread_id), new_run_id(thread_id)]
    for run_id in runs:
        await store.submit(NewRun(run_id, "w", {}), queued={})
    for run_id in runs:
        attempt = await store.claim(run_id, "w", "op")
        assert attempt
        await attempt.emit([NewEvent("log", {}) for _ in range(EVENTS_IN_ONE_READ + 10)])
        await attempt.end(RunStatus.SUCCEEDED, {}, {})
    entries = await store.events(thread_id, count=5000)
    for run_id in runs:
        run = await store.run(run_id)
        assert run
        expected = [entry for entry in entries if entry.run_id == run_id]
        assert await store.events_of(run, since=None, count=5000) == expected
        for place in (0, 1, 300, len(expected) - 2, len(expected) - 1):
            assert await store.events_of(run, since=expected[place].id, count=7) == expected[place + 1 :][:7]
        assert await store.events_of(run, since="0-0", count=2) == expected[:2]
