"""The whole path on real processes: gateway, workers, sandbox host, Valkey, and a scripted model over HTTP."""

import asyncio
import itertools
import random
import re
import signal
import time

import pytest

from shared.config import WorkerSettings
from tests.support.eventsource import Received, assert_ordered, connection, follow, position, text_of
from tests.support.stack import Stack, until

WORK = '[[tool:bash {"command": "echo x >> ran.txt; sleep 0.4; wc -l < ran.txt"} x3]] [[tokens:100]] [[delay:20]]'
# Its first command runs until the test lets it go on.
HELD = WORK.replace("sleep 0.4", "until [ -e go ]; do sleep 0.1; done")
TAKEOVER_SECONDS = 20  # a lease of 6 s, and a busy machine
# Redis may still read a claim that a worker sent before it died.
ON_ITS_WAY_SECONDS = 0.5

Job = tuple[str, str]
"""A thread's id and its run's."""


def stream(thread_id: str, run_id: str) -> str:
    return f"/api/agent/{thread_id}/stream?run_id={run_id}"


def responses(events: list[Received]) -> list[str]:
    return [event.data["data"]["tool_call_id"] for event in events if event.type == "tool.response"]


def answer(tokens: int) -> str:
    return "".join(f"t{i:05d} " for i in range(tokens))


async def start(stack: Stack, task: str) -> Job:
    thread_id = await stack.thread()
    return thread_id, await stack.execute(thread_id, task)


async def assert_exact(stack: Stack, thread_id: str, run_id: str, events: list[Received], tokens: int = 100) -> None:
    """The run succeeded, each step done once; its stream is gapless and single, and a late reader sees the same."""
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
    done = [event.data["data"]["key"] for event in events if event.type == "step.completed"]
    assert sorted(done) == sorted(step["key"] for step in steps)
    assert (await stack.run(run_id))["status"] == "succeeded"


def following(stack: Stack, jobs: list[Job], seconds: float = 120) -> "asyncio.Future[list[list[Received]]]":
    """The jobs' streams, each until its run's end, from now on."""
    return asyncio.gather(*(follow(stack.client, stream(t, r), r, seconds=seconds) for t, r in jobs))


async def in_flight(stack: Stack, jobs: list[Job]) -> dict[Job, str]:
    """Returns when every HELD job's command runs: who has which."""
    await until(lambda: all((stack.workspace(thread_id) / "ran.txt").exists() for thread_id, _ in jobs), 60)
    return await owners(stack, jobs)


def let_go(stack: Stack, jobs: list[Job]) -> None:
    for thread_id, _ in jobs:
        (stack.workspace(thread_id) / "go").touch()


async def owners(stack: Stack, jobs: list[Job]) -> dict[Job, str]:
    """Of each job that a worker has: that worker's name, such as worker-1-0a1b2c."""
    runs = await asyncio.gather(*(stack.run(run_id) for _, run_id in jobs))
    return {job: run["worker"] for job, run in zip(jobs, runs, strict=True) if run["worker"]}


def names(stack: Stack, worker: str) -> list[str]:
    """Under which it has registered, in that order."""
    return re.findall(rf"registered as ({worker}-\w+)", stack.logged(worker))


def interruptions(events: list[Received]) -> list[str]:
    """Their reasons."""
    return [event.data["data"]["reason"] for event in events if event.type == "run.interrupted"]


def assert_interrupted(streams: dict[Job, list[Received]], owned: dict[Job, str], worker: str, reason: str) -> None:
    """Each run that this worker had was interrupted once, for this reason, and no other run was."""
    found = {job: interruptions(events) for job, events in streams.items()}
    assert any(name.startswith(f"{worker}-") for name in owned.values()), "it had no run"
    assert found == {job: [reason] if owned[job].startswith(f"{worker}-") else [] for job in streams}


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
        second = await stack.execute(thread_id, '[[tool:bash {"command": "cat /workspace/file.txt; pwd"}]] [[roles]]')
        events = await follow(stack.client, stream(thread_id, second), second)
        [output] = [event.data["data"]["content"] for event in events if event.type == "tool.response"]
        assert output.startswith("kept\n/tmp\n")
        messages = (await stack.client.get(f"/api/agent/{thread_id}/messages")).json()["items"]
        roles = [message["role"] for message in messages]
        assert roles == ["user", "assistant", "tool", "assistant"] * 2
        assert text_of(events).split() == ["system", *roles[:-1]]


@pytest.mark.slow
async def test_workers_killed_at_random_lose_no_run_and_repeat_no_step() -> None:
    async with Stack(workers=2) as stack:
        jobs: list[Job] = []
        follows = []
        kills: list[float] = []
        for _ in range(3):
            await until(lambda: len(names(stack, "worker-1")) > len(kills), 60)
            wave = await asyncio.gather(*(start(stack, WORK) for _ in range(17)))
            wave += await started_until_one_is_with(stack, wave, names(stack, "worker-1")[-1])
            jobs += wave
            follows.append(following(stack, wave, seconds=240))
            await asyncio.sleep(random.uniform(0, 2))
            stack.kill("worker-1")
            kills.append(time.time())
        streams = list(itertools.chain(*await asyncio.gather(*follows)))
        for (thread_id, run_id), events in zip(jobs, streams, strict=True):
            await assert_exact(stack, thread_id, run_id, events)
        taken_over = [takeover for events in streams for takeover in takeovers(events, kills)]
        assert {kill for kill, _ in taken_over} == set(kills), "a kill hit nothing"
        seconds = [taken for _, taken in taken_over]
        assert max(seconds) < TAKEOVER_SECONDS
        print(f"{len(seconds)} attempts taken over, after {min(seconds):.1f} to {max(seconds):.1f} s")


async def started_until_one_is_with(stack: Stack, jobs: list[Job], name: str) -> list[Job]:
    """The further jobs that it took until the worker of that name had one: the other may have taken all before it."""
    further: list[Job] = []
    async with asyncio.timeout(60):
        while name not in (await owners(stack, jobs + further)).values():
            further.append(await start(stack, WORK))
            await asyncio.sleep(0.1)
    return further


def takeovers(events: list[Received], kills: list[float]) -> list[tuple[float, float]]:
    """Of each attempt that did not end its run: the kill that ended it, and the seconds until the next one began.

    Counted from the last kill before that: it may have hit the worker that was about to take over. By the stream's ids,
    which are Redis' time, the same clock.
    """
    claims = [position(event)[0] / 1000 for event in events if event.type in ("run.started", "run.resumed")]
    found = []
    for earlier, later in itertools.pairwise(claims):
        between = [kill for kill in kills if earlier - ON_ITS_WAY_SECONDS < kill < later]
        assert between, f"an attempt from {earlier} ended before {later}, and no kill of {kills} did it: {events}"
        found.append((between[0], later - between[-1]))
    return found


@pytest.mark.slow
async def test_a_killed_workers_command_is_found_again_and_not_run_twice() -> None:
    async with Stack(workers=2) as stack:
        command = "echo begun >> log; until [ -e go ]; do sleep 0.1; done; echo done >> log; cat log"
        job = await start(stack, f'[[tool:bash {{"command": "{command}"}}]] [[tokens:5]]')
        streams = following(stack, [job])
        log = stack.workspace(job[0]) / "log"
        await until(log.exists, 20)
        owned = await owners(stack, [job])
        worker = owned[job].rsplit("-", 1)[0]
        stack.kill(worker)
        await until_taken_over(stack, job, owned[job])
        assert log.read_text() == "begun\n"
        let_go(stack, [job])
        [events] = await streams
        assert_ordered(events)
        assert_interrupted({job: events}, owned, worker, "worker_lost")
        assert "run.resumed" in [event.type for event in events]
        [output] = [event.data["data"]["content"] for event in events if event.type == "tool.response"]
        assert output.startswith("begun\ndone\n")
        assert log.read_text() == "begun\ndone\n"


async def until_taken_over(stack: Stack, job: Job, worker: str) -> None:
    """Returns when another worker than this one has the job."""
    async with asyncio.timeout(30):
        while (await owners(stack, [job])).get(job, worker) == worker:
            await asyncio.sleep(0.1)


async def wake_before_the_lease(stack: Stack, worker: str) -> None:
    """Its runs write before it can learn that it was buried.

    Their writes wait for Redis; so does the lease's renewal, but that gives up and pauses.
    """
    stack.kill("valkey", signal.SIGSTOP)
    stack.kill(worker, signal.SIGCONT)
    await until(lambda: "could not renew the lease" in stack.logged(worker), 20)
    stack.kill("valkey", signal.SIGCONT)


@pytest.mark.slow
async def test_a_worker_stopped_for_longer_than_its_lease_doubles_nothing_when_it_wakes() -> None:
    async with Stack(workers=2) as stack:
        jobs = await asyncio.gather(*(start(stack, HELD) for _ in range(10)))
        streams = following(stack, jobs, seconds=240)
        owned = await in_flight(stack, jobs)
        pid = stack.kill("worker-1", signal.SIGSTOP)
        # The commands end while it is stopped, so that it has their results to write when it wakes.
        let_go(stack, jobs)
        await streams
        assert stack.pid("worker-1") == pid
        await wake_before_the_lease(stack, "worker-1")
        await until(lambda: len(names(stack, "worker-1")) == 2, 20)
        first, second = names(stack, "worker-1")
        assert first != second
        assert f"the lease of {first} had ended" in stack.logged("worker-1")
        for (_, run_id), owner in owned.items():
            refused = f"run {run_id} went on elsewhere: {run_id}: epoch 1 is over"
            assert (refused in stack.logged("worker-1")) == (owner == first)
        for (thread_id, run_id), events in zip(jobs, streams.result(), strict=True):
            await assert_exact(stack, thread_id, run_id, events)
        assert_interrupted(dict(zip(jobs, streams.result(), strict=True)), owned, "worker-1", "worker_lost")
        stack.kill("worker-2", signal.SIGSTOP)  # all further runs are for the one that woke up
        again = await asyncio.gather(*(start(stack, "[[tokens:3]]") for _ in range(10)))
        assert [events[-1].type for events in await following(stack, again)] == ["run.completed"] * 10
        stack.kill("worker-2", signal.SIGCONT)


@pytest.mark.slow
async def test_a_terminated_worker_gives_its_runs_back_and_exits_cleanly() -> None:
    async with Stack(workers=2) as stack:
        jobs = await asyncio.gather(*(start(stack, HELD) for _ in range(10)))
        streams = following(stack, jobs)
        owned = await in_flight(stack, jobs)
        pid, told = stack.kill("worker-1", signal.SIGTERM), time.monotonic()
        await until(lambda: "draining" in stack.logged("worker-1"), 10)
        let_go(stack, jobs)
        left = WorkerSettings().drain_seconds - (time.monotonic() - told)
        await until(lambda: f"worker-1 ({pid}) exited 0" in stack.log.read_text(), left)
        print(f"drained in {time.monotonic() - told:.1f} s")
        for (thread_id, run_id), events in zip(jobs, await streams, strict=True):
            await assert_exact(stack, thread_id, run_id, events)
            # The command in flight reached its commit: nobody had to begin that step again.
            begun = [event.data["data"]["key"] for event in events if event.type == "step.started"]
            assert len(begun) == len(set(begun)) == 7
        assert_interrupted(dict(zip(jobs, streams.result(), strict=True)), owned, "worker-1", "drain")


@pytest.mark.slow
async def test_a_killed_redis_comes_back_with_everything_it_acknowledged() -> None:
    async with Stack(workers=2) as stack:
        jobs = await asyncio.gather(*(start(stack, HELD) for _ in range(10)))
        streams = following(stack, jobs)
        await in_flight(stack, jobs)
        let_go(stack, jobs)
        pid, killed = stack.kill("valkey"), time.time()
        for (thread_id, run_id), events in zip(jobs, await streams, strict=True):
            await assert_exact(stack, thread_id, run_id, events)
            begun = [position(event)[0] / 1000 for event in events if event.type == "tool.request"]
            assert min(begun) < killed < max(begun)
            assert interruptions(events) == []
        assert f"valkey ({pid}) was killed by SIGKILL" in stack.log.read_text()


@pytest.mark.slow
async def test_a_cancel_ends_the_command_before_it_says_so() -> None:
    async with Stack() as stack:
        # It ends only when it is killed, so that a word said too early would show.
        task = '[[tool:bash {"command": "trap : TERM INT HUP; while true; do touch alive; sleep 0.02; done"}]]'
        thread_id, run_id = await start(stack, task)
        streams = following(stack, [(thread_id, run_id)], seconds=60)
        alive = stack.workspace(thread_id) / "alive"
        await until(alive.exists, 20)
        await stack.client.post(f"/api/runs/{run_id}/cancel", json={})
        [events] = await streams
        assert events[-1].type == "run.canceled"
        assert (await stack.run(run_id))["status"] == "canceled"
        after = await stack.execute(thread_id, '[[tool:bash {"command": "pgrep -c sleep"}]] [[tokens:1]]')
        [later] = await following(stack, [(thread_id, after)])
        [output] = [event.data["data"]["content"] for event in later if event.type == "tool.response"]
        assert output.startswith("0\n")
        assert alive.stat().st_mtime * 1000 < position(events[-1])[0] + 1
