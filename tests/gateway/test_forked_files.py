"""What a fork's sandbox will begin with: the files that a snapshot of the other thread has."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.ids import thread_of
from shared.snapshots.snapshots import Snapshot, Snapshots
from tests.gateway.support import Gateway


async def pieces(text: bytes) -> AsyncIterator[bytes]:
    yield text


class Forked:
    """A thread with two runs, each with a snapshot after it."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.snapshots: Snapshots = gateway.app.state.services.snapshots

    async def prepare(self) -> None:
        self.thread = await self.gateway.thread()
        self.runs = []
        for text in (b"first", b"second"):
            run_id = await self.gateway.finished_run(self.thread)
            assert await self.snapshots.keep(self.thread, run_id, text.decode(), pieces(text))
            self.runs.append(run_id)

    async def fork(self, path: str, **body: str) -> list[bytes]:
        answer = await self.gateway.client.post(f"/api/{path}/fork", json=body)
        assert answer.status_code in (200, 201), answer.text
        told = answer.json()
        return await self.files_of(told.get("thread_id") or thread_of(told["run_id"]))

    async def files_of(self, thread_id: str) -> list[bytes]:
        return [await self._content(snapshot) for snapshot in await self.snapshots.all(thread_id)]

    async def _content(self, snapshot: Snapshot) -> bytes:
        return b"".join([piece async for piece in self.snapshots.content(snapshot)])


@pytest.fixture
async def forked(gateway: Gateway) -> Forked:
    forked = Forked(gateway)
    await forked.prepare()
    return forked


async def test_a_forked_thread_begins_with_the_last_files(forked: Forked) -> None:
    assert await forked.fork(f"agent/{forked.thread}") == [b"second"]


async def test_a_thread_forked_at_a_step_begins_with_the_files_of_the_steps_run(forked: Forked) -> None:
    assert await forked.fork(f"agent/{forked.thread}", step_id=f"{forked.runs[0]}.1") == [b"first"]


async def test_a_forked_run_begins_with_no_later_files_than_its_own(forked: Forked) -> None:
    for run_id, files in zip(forked.runs, ([b"first"], [b"second"]), strict=True):
        assert await forked.fork(f"runs/{run_id}") == files


async def test_a_fork_without_files_is_a_fork_all_the_same(gateway: Gateway) -> None:
    forked = Forked(gateway)
    thread = await gateway.thread()
    run_id = await gateway.finished_run(thread)
    assert await forked.fork(f"runs/{run_id}") == []


async def test_files_that_are_lost_do_not_stop_a_fork(forked: Forked, tmp_path: Path) -> None:
    for part in (tmp_path / "payloads").rglob("*.*"):
        part.unlink()
    assert await forked.fork(f"agent/{forked.thread}") == []


async def test_a_fork_that_is_asked_for_again_copies_nothing_twice(forked: Forked) -> None:
    headers = {"Idempotency-Key": "once"}
    answers = [
        await forked.gateway.client.post(f"/api/agent/{forked.thread}/fork", json={}, headers=headers) for _ in range(2)
    ]
    assert answers[0].json()["thread_id"] == answers[1].json()["thread_id"]
    assert await forked.files_of(answers[0].json()["thread_id"]) == [b"second"]
