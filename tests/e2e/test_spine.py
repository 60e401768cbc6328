"""The whole path on real processes: gateway, workers, sandbox host, Valkey, and a scripted model over HTTP."""

import asyncio
import itertools
import random
import signal
import time

import pytest

from shared.config import WorkerSettings
from tests.support.eventsource import Received, assert_ordered, connection, follow, position, text_of
from tests.support.stack import Stack, until

WORK = '[[tool:bash {"command": "echo x >> ran.txt; sleep 0.4; wc -l < ran.txt"} x3]] [[tokens:100]] [[delay:20]]'
TAKEOVER_SECONDS = 10


def stream(thread_id: str, run_id: str) -> str:
    return f"/api/agent/{thread_id}/stream?run_id={run_id}"


def responses(events: list[Received]) -> list[str]:
    return [event.data["data"]["tool_call_id"] for event in events if event.type == "tool.response"]


def answer(tokens: int) -> str:
    return "".join(f"t{i:05d} " for i in range(tokens))


async def start(stack: Stack, task: str) -> tuple[str, str]:
    thread_id = await stack.thread()
    return thread_id, await stack.execute(thread_id, task)


async def assert_exact(stack: Stack, thread_id: str, run_id: str, events: list[Received], tokens: int = 100) -> None:
    """The client's stream is gapless and single, each tool ran once, and a late reader sees the very same."""
    assert_ordered(events)
    assert events[-1].type == "run.completed", events[-1]
    assert len(responses(events)) == len(set(responses(events))) == 3
    assert text_of(events) == answer(tokens)
    assert (stack.workspace(thread_id) / "ran.txt").read_text() == "x\nx\nx\n"
    late = [event async for event in connection(stack.client, stream(thread_id, run_id)) if event.id]
    assert late == events
    steps = await stack.steps(run_id)
    assert len({step["key"] for step in steps}) == len(steps) == 7
    assert {step["status"] for step in steps} == {"succeeded"}


async def test_a_task_runs_in_the_sandbox_and_its_stream_can_be_joined_anywhere() -> None:
    async with Stack() as stack:
        task = '[[tool:bash {"command": "echo $((6*7)) > made.txt; cat made.txt; id -un"}]] [[tokens:200]]'
        thread_id, run_id = await start(stack, task)
        events = await follow(stack.client, stream(thread_id, run_id), run_id)
        assert_ordered(events)
        assert text_of(events) == answer(200)
        assert events[0].name == "task_agent_execute"
        [output] = [event.data["data"]["content"] for event in events if event.type == "tool.response"]
        assert output.startswith("42\nuser\n")
        assert (stack.workspace(thread_id) / "made.txt").read_text() == "42\n"
        for cut in range(0, len(events) - 1, 3):
            rest = await follow(stack.client, stream(thread_id, run_id), run_id, last_id=events[cut].id)
            assert rest == events[cut + 1 :]
        done = await stack.client.get(stream(thread_id, run_id), headers={"Last-Event-ID": str(events[-1].id)})
        assert done.status_code == 204
        assert await stack.down() == 0


async def test_a_conversation_goes_on_in_its_thread_and_its_sandbox() -> None:
    async with Stack() as stack:
        thread_id, first = await start(stack, '[[tool:bash {"command": "echo kept > file.txt; cd /tmp"}]]')
        await follow(stack.client, stream(thread_id, first), first)
        second = await stack.execute(
            thread_id, '[[tool:bash {"command": "cat /workspace/file.txt; pwd"}]] [[tokens:3]]'
        )
        events = await follow(stack.client, stream(thread_id, second), second)
        [output] = [event.data["data"]["content"] for event in events if event.type == "tool.response"]
        assert output.startswith("kept\n/tmp\n")
        messages = (await stack.client.get(f"/api/agent/{thread_id}/messages")).json()["items"]
        assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"] * 2


@pytest.mark.slow
async def test_workers_killed_at_random_lose_no_run_and_repeat_no_step() -> None:
    async with Stack(workers=2) as stack:
        jobs = await asyncio.gather(*(start(stack, WORK) for _ in range(50)))
        follows = [asyncio.create_task(follow(stack.client, stream(t, r), r, seconds=240)) for t, r in jobs]
        kills = []
        for _ in range(3):
            await asyncio.sleep(random.uniform(1.5, 4))
            kills.append(time.time())
            stack.kill("worker-1")
        streams = await asyncio.gather(*follows)
        for (thread_id, run_id), events in zip(jobs, streams, strict=True):
            await assert_exact(stack, thread_id, run_id, events)
        taken_over = [seconds for events in streams for seconds in takeovers(events, kills)]
        assert taken_over, "the kills hit nothing"
        assert max(taken_over) < TAKEOVER_SECONDS
        print(f"{len(taken_over)} attempts taken over, after {min(taken_over):.1f} to {max(taken_over):.1f} s")


async def in_flight(stack: Stack, jobs: list[tuple[str, str]], worker: str) -> None:
    """Until each job has called a tool and has not ended, and that worker has some of them."""
    async with asyncio.timeout(60):
        while True:
            runs = await asyncio.gather(*(stack.run(run_id) for _, run_id in jobs))
            assert {run["status"] for run in runs} <= {"pending", "running"}
            steps = await asyncio.gather(*(stack.steps(run_id) for _, run_id in jobs))
            busy = all(any(step["kind"] == "tool" for step in found) for found in steps)
            if busy and any((run["worker"] or "").startswith(worker) for run in runs):
                return
            await asyncio.sleep(0.05)


def interruptions(streams: list[list[Received]]) -> list[str]:
    """Why attempts ended before their runs did."""
    return [event.data["data"]["reason"] for events in streams for event in events if event.type == "run.interrupted"]


def takeovers(events: list[Received], kills: list[float]) -> list[float]:
    """Seconds from the kill that ended an attempt to the next one, by the stream's ids: Redis' time, the same clock."""
    claims = [position(event)[0] / 1000 for event in events if event.type in ("run.started", "run.resumed")]
    return [later - min(kill for kill in kills if kill > earlier) for earlier, later in itertools.pairwise(claims)]


@pytest.mark.slow
async def test_a_killed_workers_command_is_found_again_and_not_run_twice() -> None:
    async with Stack(workers=2) as stack:
        task = '[[tool:bash {"command": "sleep 5; echo done >> log; cat log"}]] [[tokens:5]]'
        thread_id, run_id = await start(stack, task)
        following = asyncio.create_task(follow(stack.client, stream(thread_id, run_id), run_id))
        log = stack.workspace(thread_id)
        await until(log.exists, 20)
        await asyncio.sleep(1)
        await kill_owner(stack, run_id)
        events = await following
        assert_ordered(events)
        assert "run.resumed" in [event.type for event in events]
        [output] = [event.data["data"]["content"] for event in events if event.type == "tool.response"]
        assert output.startswith("done\n")
        assert (log / "log").read_text() == "done\n"


async def kill_owner(stack: Stack, run_id: str, number: signal.Signals = signal.SIGKILL) -> int:
    """Sends a signal to the worker that has the run. Returns its pid."""
    worker = (await stack.run(run_id))["worker"]
    return stack.kill(worker.rsplit("-", 1)[0], number)


@pytest.mark.slow
async def test_a_worker_stopped_for_longer_than_its_lease_doubles_nothing_when_it_wakes() -> None:
    async with Stack(workers=2) as stack:
        jobs = await asyncio.gather(*(start(stack, WORK) for _ in range(10)))
        follows = [asyncio.create_task(follow(stack.client, stream(t, r), r, seconds=240)) for t, r in jobs]
        await in_flight(stack, jobs, "worker-1")
        pid = stack.kill("worker-1", signal.SIGSTOP)
        await asyncio.sleep(30)
        assert stack.pid("worker-1") == pid
        stack.kill("worker-1", signal.SIGCONT)
        streams = await asyncio.gather(*follows)
        for (thread_id, run_id), events in zip(jobs, streams, strict=True):
            await assert_exact(stack, thread_id, run_id, events)
        reasons = interruptions(streams)
        assert reasons
        assert set(reasons) == {"worker_lost"}
        # What it still had in hand when it woke up was refused, and it works again under a new name.
        await until(lambda: "went on elsewhere" in stack.log.read_text(), 20)
        stack.kill("worker-2", signal.SIGSTOP)
        again = await asyncio.gather(*(start(stack, "[[tokens:3]]") for _ in range(10)))
        for thread_id, run_id in again:
            assert (await follow(stack.client, stream(thread_id, run_id), run_id))[-1].type == "run.completed"
        stack.kill("worker-2", signal.SIGCONT)


@pytest.mark.slow
async def test_a_terminated_worker_gives_its_runs_back_and_exits_cleanly() -> None:
    async with Stack(workers=2) as stack:
        jobs = await asyncio.gather(*(start(stack, WORK) for _ in range(10)))
        follows = [asyncio.create_task(follow(stack.client, stream(t, r), r, seconds=120)) for t, r in jobs]
        await in_flight(stack, jobs, "worker-1")
        pid, told = stack.kill("worker-1", signal.SIGTERM), time.monotonic()
        await until(lambda: f"worker-1 ({pid}) exited 0" in stack.log.read_text(), WorkerSettings().drain_seconds)
        print(f"drained in {time.monotonic() - told:.1f} s")
        streams = await asyncio.gather(*follows)
        for (thread_id, run_id), events in zip(jobs, streams, strict=True):
            await assert_exact(stack, thread_id, run_id, events)
        reasons = interruptions(streams)
        assert reasons
        assert set(reasons) == {"drain"}


@pytest.mark.slow
async def test_a_killed_redis_comes_back_with_everything_it_acknowledged() -> None:
    async with Stack(workers=2) as stack:
        jobs = await asyncio.gather(*(start(stack, WORK) for _ in range(10)))
        follows = [asyncio.create_task(follow(stack.client, stream(t, r), r, seconds=120)) for t, r in jobs]
        await in_flight(stack, jobs, "worker-")
        stack.kill("valkey")
        for (thread_id, run_id), events in zip(jobs, await asyncio.gather(*follows), strict=True):
            await assert_exact(stack, thread_id, run_id, events)


@pytest.mark.slow
async def test_a_cancel_ends_the_command_before_it_says_so() -> None:
    async with Stack() as stack:
        task = '[[tool:bash {"command": "touch begun; sleep 60; touch late"}]]'
        thread_id, run_id = await start(stack, task)
        following = asyncio.create_task(follow(stack.client, stream(thread_id, run_id), run_id, seconds=30))
        await until((stack.workspace(thread_id) / "begun").exists, 20)
        await stack.client.post(f"/api/runs/{run_id}/cancel", json={})
        events = await following
        assert events[-1].type == "run.canceled"
        assert (await stack.run(run_id))["status"] == "canceled"
        after = await stack.execute(thread_id, '[[tool:bash {"command": "pgrep -c sleep"}]] [[tokens:1]]')
        [output] = [
            event.data["data"]["content"]
            for event in await follow(stack.client, stream(thread_id, after), after)
            if event.type == "tool.response"
        ]
        assert output.startswith("0\n")
