"""A thread's files beyond its sandbox: real sandbox hosts that go away, real runs, parts in a folder."""

import io
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from modem.agenda import Agenda
from shared.config import SnapshotSettings
from shared.events.outside import Outside
from shared.ids import SHARDS, new_run_id, new_thread_id
from shared.keys import ThreadKeys
from shared.redis import connect
from shared.snapshots.snapshots import PART_BYTES, Snapshots
from shared.threads.types import NewRun, NewThread, Thread
from tests.workflow.sandbox.support import Box, Host, new_box
from tests.workflow.support import Playbook, a_runtime, outside, turn
from workflow.files import Files
from workflow.runner import Runner, Signals
from workflow.sandbox.base import Command, SandboxRefused, SandboxUnavailable
from workflow.sandbox.local import LocalProvider, LocalSandbox
from workflow.tool.registry import built_in_tools

EXCLUDE = ["node_modules"]


async def packed(sandbox: LocalSandbox, known: str = "", max_bytes: int = 2**40) -> tuple[str, bytes | None]:
    async with sandbox.packed(EXCLUDE, known, max_bytes) as files:
        if files.pieces is None:
            return files.fingerprint, None
        return files.fingerprint, b"".join([piece async for piece in files.pieces])


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


# --- of one sandbox


async def test_a_workspace_goes_into_another_sandbox_as_it_is(box: Box, provider: LocalProvider) -> None:
    await box.run(
        "mkdir -p a/b node_modules/x empty; echo hello > a/b/file; head -c 3M /dev/urandom > large; ln -s a/b link;"
        "echo '#!/bin/sh' > run; chmod +x run; echo x > node_modules/x/y; touch 'näme with space'"
    )
    look = "find . | sort | grep -v node_modules; sha256sum large a/b/file; cat link/file; test -x run && echo runs"
    (_, archive), other = await packed(box.sandbox), await new_box(provider)
    assert archive
    await other.sandbox.fill(once(archive))
    assert await other.text(look) == await box.text(look)
    assert await other.text("ls node_modules 2>&1; true") != "x\n"


@pytest.mark.parametrize(
    "change", ["echo 2 >> f", "touch g", "rm f", "mv f g", "chmod +x f", "printf 3 > f", "ln -s f g"]
)
async def test_what_has_not_changed_is_not_sent_and_what_has_is(box: Box, change: str) -> None:
    await box.run("printf 1 > f; mkdir node_modules")
    fingerprint, first = await packed(box.sandbox)
    assert first
    await box.run("echo x > node_modules/y; cat f; touch /tmp/z")
    assert await packed(box.sandbox, fingerprint) == (fingerprint, None)
    await box.run(change)
    assert (await packed(box.sandbox, fingerprint))[1]


async def test_more_than_is_allowed_is_refused_before_anything_is_sent(box: Box) -> None:
    await box.run("head -c 2M /dev/zero > f")
    with pytest.raises(SandboxRefused, match="more than 1000000"):
        await packed(box.sandbox, max_bytes=1_000_000)


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x"])
async def test_an_archive_cannot_write_beside_the_workspace(box: Box, name: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(SandboxRefused, match="outside of its folder"):
        await box.sandbox.fill(once(buffer.getvalue()))
    assert box.sandbox.blank


async def test_a_sandbox_is_blank_until_something_was_in_it_even_after_its_host_restarted(host: Host) -> None:
    provider = LocalProvider(host.settings)
    box, other = await new_box(provider), await new_box(provider)
    assert box.sandbox.blank
    await box.run("true")
    host.kill()
    host.start()
    for each, blank in ((box, False), (other, True)):
        again = await provider.acquire(each.run_id.partition(".")[0], None)
        assert again.blank is blank
    await provider.close()


# --- of a thread


class Place:
    """A worker, and the sandbox host that it uses now."""

    def __init__(self, host: Host, client: Redis, data: Path, **snapshots: Any) -> None:
        self.host, self.client = host, client
        self.settings = SnapshotSettings(**snapshots)
        self.out: Outside = outside(client, data=data)
        self.snapshots = Snapshots(client, self.out.store.payloads, self.settings, patience_seconds=5)
        self.parts = data / "payloads"

    def files(self) -> tuple[Files, LocalProvider]:
        provider = LocalProvider(self.host.settings)
        return Files(self.snapshots, self.out.store, provider, self.settings), provider

    async def thread(self) -> Thread:
        return await self.out.store.create_thread(NewThread(new_thread_id(), "w"))

    async def run(self, thread_id: str, command: str) -> tuple[str, str | None]:
        """A run of one command, to its end and its snapshot. Returns its id, and what its sandbox had to say."""
        files, provider = self.files()
        thread = await self.out.store.thread(thread_id)
        assert thread
        run_id = new_run_id(thread_id)
        await self.client.zadd(
            ThreadKeys(thread_id).runs, {run_id: await self.client.zcard(ThreadKeys(thread_id).runs)}
        )
        sandbox = await files.acquire(thread_id, thread.sandbox)
        await self.client.hset(ThreadKeys(thread_id).metadata, "sandbox", orjson.dumps(sandbox.ref))
        notice = sandbox.notice
        result = await sandbox.exec(Command(f"{run_id}/tool:1", 1, command), _silent)
        assert result.exit_code == 0, result.output
        files.keep(thread, run_id)
        await files.close()
        await provider.close()
        return run_id, notice

    def stored(self) -> int:
        return sum(1 for path in self.parts.rglob("*") if path.is_file())


async def _silent(_: str, __: str) -> None:
    pass


@pytest.fixture
def some_host() -> Iterator[Host]:
    with Host("user") as host:
        yield host


@pytest.fixture
async def place(some_host: Host, redis_url: str, tmp_path: Path) -> AsyncIterator[Place]:
    client = connect(redis_url, timeout_seconds=5, max_connections=50)
    yield Place(some_host, client, tmp_path, keep=2)
    await client.aclose()


async def test_files_of_a_machine_that_is_gone_are_brought_back_elsewhere_and_the_model_is_told(place: Place) -> None:
    thread = await place.thread()
    _, notice = await place.run(
        thread.id, "mkdir d; echo one > d/kept; head -c 20M /dev/urandom > large; sha256sum large > sum"
    )
    assert notice is None
    assert place.stored() == 20 * 1024**2 // PART_BYTES + 1
    with Host("user") as another:
        place.host = another
        _, notice = await place.run(thread.id, "sha256sum -c sum && echo two >> d/kept")
        assert "machine of your sandbox is gone" in str(notice)
        assert "as they were at 20" in str(notice)
        assert "node_modules" in str(notice)
        _, notice = await place.run(thread.id, "grep two d/kept")
        assert notice is None


async def test_only_the_newest_snapshots_are_kept_and_nothing_is_left_of_the_others(place: Place) -> None:
    thread = await place.thread()
    runs = [(await place.run(thread.id, f"echo {number} > file"))[0] for number in range(4)]
    assert [each.run_id for each in await place.snapshots.all(thread.id)] == runs[2:]
    await Agenda(place.out).tick(range(SHARDS))
    assert place.stored() == 2
    await place.snapshots.delete(thread.id)
    assert (place.stored(), await place.snapshots.all(thread.id)) == (0, [])


async def test_a_run_that_changed_nothing_costs_no_snapshot(place: Place) -> None:
    thread = await place.thread()
    first, _ = await place.run(thread.id, "echo 1 > file")
    await place.run(thread.id, "cat file")
    assert [each.run_id for each in await place.snapshots.all(thread.id)] == [first]


async def test_a_fork_begins_with_the_files_of_the_last_snapshot_that_is_not_later(place: Place) -> None:
    thread, early, late = await place.thread(), await place.thread(), await place.thread()
    run, _ = await place.run(thread.id, "echo 1 > file")
    await place.run(thread.id, "echo 2 > file")
    await place.snapshots.copy(thread.id, early.id, up_to=run)
    await place.snapshots.copy(thread.id, late.id)
    await place.snapshots.delete(thread.id)
    _, notice = await place.run(early.id, "grep 1 file")
    assert "copied from the thread that this one was forked from" in str(notice)
    await place.run(late.id, "grep 2 file")


async def test_what_a_fork_has_written_itself_is_not_written_over(place: Place) -> None:
    thread, fork = await place.thread(), await place.thread()
    await place.run(thread.id, "echo theirs > file")
    await place.snapshots.copy(thread.id, fork.id)
    await place.run(fork.id, "echo mine > file")
    place.host.kill()
    place.host.start()
    await place.run(fork.id, "grep mine file")


async def test_a_snapshot_that_broke_off_is_never_used_and_its_parts_are_deleted(place: Place) -> None:
    thread = await place.thread()
    first, _ = await place.run(thread.id, "echo 1 > file")

    async def half() -> AsyncIterator[bytes]:
        yield bytes(PART_BYTES)
        raise SandboxUnavailable("the host is gone")

    with pytest.raises(SandboxUnavailable):
        await place.snapshots.keep(thread.id, "later", "other", half())
    assert place.stored() == 2
    assert [each.run_id for each in await place.snapshots.all(thread.id)] == [first]
    await _an_hour_passes(place, thread.id)
    assert place.stored() == 1


async def test_parts_that_were_cleaned_up_before_their_snapshot_was_whole_make_none(place: Place) -> None:
    thread = await place.thread()

    async def slow() -> AsyncIterator[bytes]:
        yield bytes(PART_BYTES)
        await _an_hour_passes(place, thread.id)
        yield b"the rest"

    assert await place.snapshots.keep(thread.id, "run", "fingerprint", slow()) is None
    assert await place.snapshots.all(thread.id) == []


async def test_a_host_that_dies_while_it_packs_leaves_the_last_snapshot_standing(place: Place) -> None:
    thread = await place.thread()
    first, _ = await place.run(thread.id, "echo 1 > file")
    record = await place.out.store.thread(thread.id)
    assert record
    provider = LocalProvider(place.host.settings)
    sandbox = await provider.acquire(thread.id, record.sandbox)
    await sandbox.exec(Command(f"{first}/tool:2", 1, "head -c 60M /dev/urandom > large"), _silent)

    async def pieces(files: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        yield await anext(files)
        place.host.kill()
        async for piece in files:
            yield piece

    async def keep() -> None:
        async with sandbox.packed([], "", 2**40) as files:
            assert files.pieces
            await place.snapshots.keep(thread.id, "later", files.fingerprint, pieces(files.pieces))

    with pytest.raises(SandboxUnavailable):
        await keep()
    assert [each.run_id for each in await place.snapshots.all(thread.id)] == [first]
    await provider.close()


async def test_the_end_of_a_run_does_not_wait_for_its_snapshot(place: Place) -> None:
    """A real run, by a scripted model."""
    book = Playbook([turn("", ("c1", "bash", '{"command": "head -c 30M /dev/urandom > large"}')), turn("Done.")])
    provider = LocalProvider(place.host.settings)
    runtime = replace(
        a_runtime(book, client=place.client), sandboxes=provider, all_tools=built_in_tools().only(["bash"])
    )
    runner, thread = Runner(place.out, runtime), await place.thread()
    run_id = new_run_id(thread.id)
    await place.out.store.submit(NewRun(run_id, "w", {"task": "work"}), queued={})
    await runner.execute(run_id, "w1", Signals())
    run = await place.out.store.run(run_id)
    assert run
    assert run.status == "succeeded", run
    assert await place.snapshots.all(thread.id) == []
    await runner.close()
    (snapshot,) = await place.snapshots.all(thread.id)
    assert snapshot.run_id == run_id
    assert 30_000_000 < snapshot.size < 33_000_000
    await provider.close()


async def _an_hour_passes(place: Place, thread_id: str) -> None:
    """For the markers of parts that nothing names."""
    timers = ThreadKeys(thread_id).timers
    markers: list[Any] = await place.client.zrange(timers, 0, -1)
    for marker in markers:
        await place.client.zadd(timers, {marker: 1})
    for _ in range(2):  # once to disown, once to delete
        await Agenda(place.out).tick(range(SHARDS))
