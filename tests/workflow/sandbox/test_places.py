"""A host has places for so many running sandboxes, and memory for so much of their output."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import until
from tests.workflow.sandbox.support import Box, Host, new_box
from workflow.sandbox.base import Command, ExecStatus, FileWrite, SandboxUnavailable
from workflow.sandbox.local import LocalProvider

MIB = 1024**2
MODE = "root" if os.geteuid() == 0 else "user"
Boxes = Callable[..., AbstractAsyncContextManager[list[Box]]]


@asynccontextmanager
async def boxes_of(host: Host, number: int) -> AsyncIterator[list[Box]]:
    provider = LocalProvider(host.settings)
    try:
        yield [await new_box(provider) for _ in range(number)]
    finally:
        await provider.close()


@asynccontextmanager
async def boxes(number: int, environ: dict[str, str] | None = None, **settings: Any) -> AsyncIterator[list[Box]]:
    with Host(MODE, environ, **settings) as host:
        async with boxes_of(host, number) as made:
            yield made


def sandboxes_of(host: Host) -> list[str]:
    """The command lines of the bubblewraps that the host has started for them."""
    lines = []
    for children in Path(f"/proc/{host.process.pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread may have ended, or the child
            for child in children.read_text().split():
                lines.append(Path(f"/proc/{child}/cmdline").read_text())
    return [line for line in lines if "--args" in line]


async def test_five_threads_that_run_commands_take_turns_in_two_places() -> None:
    most = 0

    async def watch(host: Host) -> None:
        nonlocal most
        while True:
            most = max(most, len(sandboxes_of(host)))
            await asyncio.sleep(0.01)

    with Host(MODE, max_running=2) as host:
        async with boxes_of(host, 5) as five:
            watching = asyncio.create_task(watch(host))
            for turn in range(2):
                texts = await asyncio.gather(
                    *(box.text(f"echo {turn} >> log; sleep 0.5; cat log; echo {n}") for n, box in enumerate(five))
                )
                assert texts == ["".join(f"{past}\n" for past in range(turn + 1)) + f"{n}\n" for n in range(5)]
            watching.cancel()
    assert most == 2


async def test_the_one_idle_the_longest_gives_its_place_and_its_files_stay() -> None:
    async with boxes(3, max_running=2) as (first, second, third):
        for box in (first, second):
            await box.run("touch /tmp/here kept")
        assert await first.text("ls /tmp") == "here\n"
        await third.run("true")
        assert await first.text("ls /tmp") == "here\n"
        assert await second.text("ls /tmp; ls") == "kept\n"


async def test_background_tasks_keep_their_place_while_another_is_idle() -> None:
    async with boxes(3, max_running=2) as (server, idle, third):
        await server.run("sleep 60", background=True)
        await idle.run("true")
        await third.run("true")
        assert [task.status for task in await server.sandbox.tasks()] == [ExecStatus.RUNNING]


async def test_background_tasks_that_somebody_asked_after_just_now_are_not_sacrificed() -> None:
    async with boxes(2, {"TEST_PLACE_SECONDS": "0.3"}, max_running=1) as (server, other):
        await server.run("sleep 60", background=True)
        with pytest.raises(SandboxUnavailable):
            await other.run("true")
        assert [task.status for task in await server.sandbox.tasks()] == [ExecStatus.RUNNING]


async def test_background_tasks_that_nobody_asked_after_for_long_give_their_place_and_say_why() -> None:
    async with boxes(2, {"TEST_TASK_GRACE": "0.2"}, max_running=1) as (server, other):
        task = await server.run("sleep 60", background=True)
        assert await other.text("echo in") == "in\n"
        told = (await server.sandbox.task_output(str(task.task_id))).task
        assert (told.status, told.killed_by) == (ExecStatus.KILLED, "its place was needed: sandbox.max_running is 1")


async def test_where_all_are_busy_the_caller_waits_for_the_first_that_is_done() -> None:
    async with boxes(2, max_running=1) as (busy, waiting):
        running = asyncio.create_task(busy.run("echo on; until [ -e over ]; do sleep 0.05; done"))
        await until(lambda: bool(busy.shown))
        writing = asyncio.create_task(waiting.sandbox.write([FileWrite("x", b"y")], waiting.key(), 1, b""))
        await asyncio.wait([writing], timeout=0.5)
        assert not writing.done()
        await busy.sandbox.write([FileWrite("over", b"")], busy.key(), 1, b"")
        await writing
        await running


async def test_the_wait_for_a_place_is_no_part_of_a_commands_time() -> None:
    async with boxes(2, max_running=1) as (busy, waiting):
        running = asyncio.create_task(busy.run("echo on; sleep 3"))
        await until(lambda: bool(busy.shown))
        result = await waiting.run("echo out", timeout_seconds=2)
        assert (result.status, result.output.head) == (ExecStatus.EXITED, "out\n")
        await running


async def test_who_finds_no_place_in_time_is_told_what_to_raise_and_may_come_again() -> None:
    async with boxes(2, {"TEST_PLACE_SECONDS": "0.3"}, max_running=1) as (busy, late):
        running = asyncio.create_task(busy.run("echo on; until [ -e over ]; do sleep 0.05; done"))
        await until(lambda: bool(busy.shown))
        key = late.key()
        with pytest.raises(SandboxUnavailable, match=r"sandbox\.max_running"):
            await late.run("echo in", key=key)
        with pytest.raises(SandboxUnavailable, match=r"sandbox\.max_running"):
            await late.sandbox.list(".")
        await busy.sandbox.write([FileWrite("over", b"")], busy.key(), 1, b"")
        await running
        assert (await late.run("echo in", key=key)).output.head == "in\n"


async def test_a_command_canceled_while_it_waits_for_a_place_never_begins() -> None:
    async with boxes(2, max_running=1) as (busy, waiting):
        running = asyncio.create_task(busy.run("echo on; until [ -e over ]; do sleep 0.05; done"))
        await until(lambda: bool(busy.shown))
        begun = asyncio.create_task(waiting.run("touch begun"))
        await eventually_canceled(waiting, begun)
        assert (await begun).killed_by == "cancellation"
        await busy.sandbox.write([FileWrite("over", b"")], busy.key(), 1, b"")
        await running
        assert await waiting.text("ls") == ""


async def eventually_canceled(box: Box, begun: "asyncio.Task[Any]") -> None:
    """The cancellation may overtake the command that it is for."""
    async with asyncio.timeout(5):
        while not begun.done():
            await box.sandbox.cancel(box.run_id, 1)
            await asyncio.sleep(0.01)


async def test_what_needs_no_process_waits_for_no_place() -> None:
    async with boxes(2, max_running=1) as (busy, resting):
        await resting.run("true", key=f"{resting.run_id}/done")
        task = await resting.run("true", background=True)
        await resting.sandbox.task_output(str(task.task_id), block_seconds=5)
        running = asyncio.create_task(busy.run("echo on; until [ -e over ]; do sleep 0.05; done"))
        await until(lambda: bool(busy.shown))
        async with asyncio.timeout(5):
            await resting.sandbox.cancel(resting.run_id, 1)
            assert await resting.sandbox.attach(f"{resting.run_id}/done", 1, resting.show)
            assert await resting.sandbox.recall(resting.key(), 1) is None
            assert len(await resting.sandbox.tasks()) == 1
        await busy.sandbox.write([FileWrite("over", b"")], busy.key(), 1, b"")
        await running


async def test_a_note_is_given_again_by_a_sandbox_that_gave_its_place() -> None:
    async with boxes(2, max_running=1) as (first, second):
        key = first.key()
        await first.sandbox.write([FileWrite("x", b"1")], key, 1, b"the note")
        await second.run("true")
        again = await first.sandbox.write([FileWrite("x", b"2")], key, 1, b"another")
        assert (again.note, again.repeated) == (b"the note", True)
        assert (await first.sandbox.read("x")).content == b"1"


async def test_the_output_of_all_commands_together_is_bounded() -> None:
    async with boxes(5, output_bytes=8 * MIB) as five:
        keys = [box.key() for box in five]
        for box, key in zip(five, keys, strict=True):
            await box.run(f"head -c {6 * MIB} /dev/zero", key=key)
        results = [await box.sandbox.exec(Command(key, 1, ""), box.show) for box, key in zip(five, keys, strict=True)]
        kept = [6 * MIB - result.dropped_bytes for result in results]
        assert 0 < sum(kept) <= 12 * MIB
        assert kept[-1] > 0
