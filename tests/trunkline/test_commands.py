"""The commands beside `run`, against a real gateway."""

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.gateway.support import KEY, Gateway, until
from tests.trunkline.worker import ANSWER, Worker
from trunkline import AsyncTrunkline
from trunkline.cli import app


class Terminal:
    """`trunkline ...` in a thread of its own."""

    def __init__(self, gateway: Gateway, key: str = KEY) -> None:
        self._server = ["--url", f"http://127.0.0.1:{gateway.port}", "--key", key]

    async def __call__(self, *arguments: str) -> Result:
        # wide enough that no row is broken
        run = CliRunner(env={"COLUMNS": "200"}).invoke
        return await asyncio.to_thread(run, app, [*arguments, *self._server])

    async def json(self, *arguments: str) -> list[dict[str, Any]]:
        done = await self(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def terminal(gateway: Gateway) -> Terminal:
    return Terminal(gateway)


async def test_threads_and_runs_are_listed(terminal: Terminal, gateway: Gateway) -> None:
    assert "No threads yet" in (await terminal("threads")).stdout
    thread_id = await gateway.thread()
    assert "No runs yet" in (await terminal("runs", thread_id)).stdout
    run_id = await gateway.execute(thread_id, "Sing\nloudly")
    listed = (await terminal("runs", thread_id)).stdout
    assert listed.splitlines()[1].split(maxsplit=1)[0] == run_id
    assert "Sing …" in listed
    assert [run["run_id"] for run in await terminal.json("runs", thread_id)] == [run_id]
    assert [thread["current_run_id"] for thread in await terminal.json("threads")] == [run_id]


async def test_a_run_and_all_of_a_thread_are_canceled(terminal: Terminal, gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    first, second = await gateway.execute(thread_id), await gateway.execute(thread_id)
    assert f"{first}  canceled" in (await terminal("cancel", first)).stdout
    assert [run["run_id"] for run in await terminal.json("cancel", thread_id)] == [second]
    assert "Nothing is under way" in (await terminal("cancel", thread_id)).stdout


async def test_what_waits_for_people_is_listed_and_answered(
    terminal: Terminal, worker: Worker, trunkline: AsyncTrunkline
) -> None:
    async def asked() -> str:
        run = await trunkline.runs.create(runnable_type="function", runnable_id="ask", input="really?")
        await worker.work(run.id)
        return f"{run.id}.1"

    async def output(step_id: str) -> Any:
        run_id = step_id.rpartition(".")[0]
        await worker.work(run_id)
        return (await trunkline.runs.get(run_id)).output

    assert "Nothing waits" in (await terminal("approvals")).stdout
    yes, no, other = await asked(), await asked(), await asked()
    assert f"{yes}  an answer  really?" in (await terminal("approvals")).stdout
    assert (await terminal("approve", yes)).stdout == f"{yes} succeeded\n"
    [rejected] = await terminal.json("reject", no, "--comment", "too dear")
    assert rejected["step_id"] == no
    await terminal("answer", other, '{"amount": 3}')
    assert await output(yes) == {"approved": True}
    assert await output(no) == {"approved": False, "comment": "too dear"}
    assert await output(other) == {"amount": 3}
    late = await terminal("approve", yes)
    assert (late.exit_code, late.stdout) == (1, "")
    assert late.stderr.startswith("Error: ")
    assert (await terminal("resolve", yes, "done")).exit_code == 1
    assert (await terminal("resolve", yes, "nonsense")).exit_code == 2


async def test_an_event_is_published(terminal: Terminal, worker: Worker, trunkline: AsyncTrunkline) -> None:
    run = await trunkline.runs.create(runnable_type="function", runnable_id="pause", input="order-7")
    await worker.work(run.id)
    assert (await terminal("publish", "go", "paid", "--for", "order-7")).exit_code == 0
    await worker.work(run.id)
    assert (await trunkline.runs.get(run.id)).output == "paid"


async def test_a_failed_run_is_retried_and_followed(
    terminal: Terminal, worker: Worker, trunkline: AsyncTrunkline
) -> None:
    run = await trunkline.runs.create(runnable_type="function", runnable_id="fall")
    await worker.work(run.id)
    assert (await terminal("logs", run.id)).exit_code == 1
    retrying = asyncio.create_task(terminal("retry", run.id))
    await until(lambda: _runs(trunkline, run.thread_id, 2))
    [_, again] = [each async for each in trunkline.threads.runs(run.thread_id)]
    await worker.work(again.id)
    done = await retrying
    assert done.exit_code == 0
    assert f"run {again.id}" in done.stdout


async def _runs(trunkline: AsyncTrunkline, thread_id: str, count: int) -> bool:
    return len([each async for each in trunkline.threads.runs(thread_id)]) == count


async def test_a_task_is_run_to_its_end(terminal: Terminal, worker: Worker, gateway: Gateway) -> None:
    thread_id = await gateway.thread()
    running = asyncio.create_task(terminal.json("run", "Sing", "--thread", thread_id))
    async with AsyncTrunkline(f"http://127.0.0.1:{gateway.port}", KEY) as trunkline:
        await until(lambda: _runs(trunkline, thread_id, 1))
        [run] = [each async for each in trunkline.threads.runs(thread_id)]
    await worker.work(run.id)
    told = await running
    assert [told[0]["type"], told[-1]["type"], told[-1]["data"]["output"]] == ["run.queued", "run.completed", ANSWER]


async def test_what_goes_wrong_is_a_line_and_an_exit_code(terminal: Terminal, gateway: Gateway) -> None:
    for arguments, code, words in (
        (["logs", "nonsense"], 1, "There is no run nonsense."),
        (["logs", ""], 1, "'' is no id."),
        (["files", "get", "t", "../etc/passwd"], 1, "no path below the workspace"),
        (["runs"], 2, "Missing argument"),
    ):
        done = await terminal(*arguments)
        assert (done.exit_code, done.stdout) == (code, "")
        assert words in done.stderr
    refused = await Terminal(gateway, "wrong")("threads")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith("Error: ")
