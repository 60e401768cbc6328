"""The command line as a person uses it, against a real stack with the scripted model."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.ports import free_port
from tests.support.stack import Stack, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRUNKLINE = str(Path(sys.executable).with_name("trunkline"))
SLOW_ANSWER = "[[tokens:200]] [[delay:40]]"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


class Command:
    """A running `trunkline`, whose output can be waited for."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out = ""
        assert process.stdout is not None
        assert process.stderr is not None
        self._reading = asyncio.create_task(self._read(process.stdout))
        self._errors = asyncio.create_task(process.stderr.read())

    @classmethod
    async def start(cls, stack: Stack, *arguments: str) -> "Command":
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE")}
        return cls(
            await asyncio.create_subprocess_exec(
                *(TRUNKLINE, *arguments, "--data", str(stack.data)),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
            )
        )

    async def says(self, text: str, seconds: float = 20) -> None:
        await until(lambda: text in self.out, seconds)

    async def done(self, seconds: float = 60) -> Done:
        async with asyncio.timeout(seconds):
            code = await self.process.wait()
            await self._reading
            return Done(code, self.out, (await self._errors).decode())

    async def _read(self, output: asyncio.StreamReader) -> None:
        while part := await output.read(65536):
            self.out += part.decode()


async def trunkline(stack: Stack, *arguments: str) -> Done:
    return await (await Command.start(stack, *arguments)).done()


def events(lines: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in lines.splitlines()]


def run_of(output: str) -> str:
    """The run that the output's first line names."""
    return output.partition("\n")[0].removeprefix("run ")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with Stack() as started:
        yield started


async def test_a_task_is_run_and_can_be_looked_at_again(stack: Stack) -> None:
    task = '[[tool:bash {"command": "echo made > file.txt; cat file.txt"}]] [[tokens:3]]'
    ran = await trunkline(stack, "run", task)
    assert ran.code == 0, ran
    assert "● bash  echo made > file.txt; cat file.txt\n  │ made\n" in ran.out
    assert "t00000 t00001 t00002" in ran.out
    assert "✓ succeeded" in ran.out
    run_id = run_of(ran.out)
    assert (stack.workspace(run_id.partition(".")[0]) / "file.txt").read_text() == "made\n"
    again = await trunkline(stack, "logs", run_id)
    assert (again.code, again.out) == (0, ran.out)
    told = events((await trunkline(stack, "logs", run_id, "--json")).out)
    assert [told[0]["type"], told[-1]["type"]] == ["run.queued", "run.completed"]


async def test_a_thread_goes_on_and_is_listed(stack: Stack) -> None:
    thread_id = await stack.thread()
    went_on = await trunkline(stack, "run", "--json", "--thread", thread_id, "[[tokens:1]]")
    assert went_on.code == 0
    assert {event["thread_id"] for event in events(went_on.out)} == {thread_id}
    assert thread_id in (await trunkline(stack, "threads")).out
    [newest] = events((await trunkline(stack, "threads", "--json", "--limit", "1")).out)
    assert newest["thread_id"] == thread_id


async def test_what_goes_wrong_is_said_in_a_line_and_in_the_exit_code(stack: Stack) -> None:
    failed = await trunkline(stack, "run", "[[error:401]]")
    assert failed.code == 1
    assert "✗ failed: " in failed.out
    blank = await trunkline(stack, "run", " ")
    assert blank.code == 1
    assert "Error: body.task" in blank.err
    unknown = await trunkline(stack, "logs", "nonsense")
    assert (unknown.code, unknown.err) == (1, "Error: There is no run nonsense.\n")


async def test_ctrl_c_cancels_the_run(stack: Stack) -> None:
    command = await Command.start(stack, "run", f'[[tool:bash {{"command": "sleep 60"}}]] {SLOW_ANSWER}')
    await command.says("● bash")
    command.process.send_signal(signal.SIGINT)
    done = await command.done()
    assert done.code == 1
    assert done.out.splitlines()[-1].startswith("■ canceled")
    assert (await stack.run(run_of(done.out)))["status"] == "canceled"


async def test_a_second_ctrl_c_leaves_the_run(stack: Stack) -> None:
    command = await Command.start(stack, "run", SLOW_ANSWER)
    await command.says("t00003")
    stack.kill("worker-1", signal.SIGSTOP)  # nobody there to end the run
    try:
        command.process.send_signal(signal.SIGINT)
        await command.says("Ctrl-C again leaves it")
        command.process.send_signal(signal.SIGINT)
        left = await command.done()
    finally:
        stack.kill("worker-1", signal.SIGCONT)
    assert left.code == 130
    assert f"trunkline logs {run_of(left.out)}" in left.out
    ended = await trunkline(stack, "logs", run_of(left.out))
    assert "■ canceled" in ended.out


@pytest.mark.slow
async def test_a_dropped_connection_and_a_lost_worker_are_told_and_lose_nothing() -> None:
    async with Stack() as stack:
        command = await Command.start(stack, "run", SLOW_ANSWER)
        as_json = await Command.start(stack, "run", "--json", SLOW_ANSWER)
        await command.says("t00010")
        stack.kill("gateway")
        await command.says("connection lost")
        await command.says("t00050")
        stack.kill("worker-1")
        await command.says("↻ resumed, attempt 2", seconds=90)
        done, told = await command.done(), await as_json.done()
        assert (done.code, told.code) == (0, 0)
        assert "⚠ the worker was lost" in done.out
        assert "✗ void: what stands above from “t00000" in done.out
        answer = done.out.rpartition("↻ resumed, attempt 2")[2]
        assert "".join(f"t{i:05d} " for i in range(200)) in answer.replace("\n", "")
        ids = [tuple(int(part) for part in str(event["id"]).split("-")) for event in events(told.out)]
        assert ids == sorted(set(ids))
        assert "connection lost" in told.err


async def test_a_server_that_is_not_there_is_said_with_what_to_do(tmp_path: Path) -> None:
    async def told(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            TRUNKLINE, "threads", *arguments, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        out, errors = await process.communicate()
        assert (process.returncode, out) == (1, b"")
        return errors.decode()

    unreachable = await told("--url", f"http://127.0.0.1:{free_port()}")
    assert "cannot be reached" in unreachable
    assert "scripts/up starts it" in unreachable
    assert "No Trunkline runs on the data folder" in await told("--data", str(tmp_path))
