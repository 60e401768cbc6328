"""Busy threads: what becomes of many requests at once, over several gateways, one of which is killed in between."""

import asyncio
import itertools
import random
import subprocess
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import orjson
import pytest

from shared.events.outside import Outside
from shared.redis import connect
from shared.tasks import cancel
from shared.types import JSON
from tests.gateway.support import KEY, until
from tests.gateway.test_process import gateway_process, ready
from tests.support.ports import free_port
from tests.workflow.support import Playbook, a_runtime, outside, turn
from workflow.llm.types import ModelRequest, ModelResponse, TextDelta, ThinkingDelta
from workflow.runner import Runner, Signals

REQUESTS = 200
TERMINAL = {"run.completed", "run.failed", "run.canceled"}

pytestmark = pytest.mark.slow


class Slow(Playbook):
    """Takes a while, so that requests meet a run under way."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ThinkingDelta | ModelResponse, None]:
        await asyncio.sleep(0.03)
        async for item in super().stream(request):
            yield item


class Crowd:
    """Clients of three gateways. One that gets no answer asks another gateway, with the same Idempotency-Key."""

    def __init__(self, gateways: dict[int, subprocess.Popen[bytes]]) -> None:
        self.gateways = gateways
        self.client = httpx.AsyncClient(headers={"X-API-Key": KEY}, timeout=30, limits=httpx.Limits(max_connections=50))

    async def execute(self, thread_id: str, number: int, on_busy: str) -> httpx.Response:
        body = {"task": f"task {number}", "on_busy": on_busy}
        while True:
            port = random.choice(list(self.gateways))
            try:
                return await self.client.post(
                    f"http://127.0.0.1:{port}/api/agent/{thread_id}/execute",
                    json=body,
                    headers={"Idempotency-Key": f"request-{number}"},
                )
            except httpx.TransportError:
                await asyncio.sleep(0.05)

    def kill_one(self) -> None:
        self.gateways.popitem()[1].kill()


@pytest.fixture
async def out(redis_url: str) -> AsyncIterator[Outside]:
    client = connect(redis_url, timeout_seconds=5, max_connections=10)
    yield outside(client)
    await client.aclose()


@pytest.fixture
async def crowd(redis_url: str, tmp_path: Path) -> AsyncIterator[Crowd]:
    with ExitStack() as stack:
        gateways = {}
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            port = free_port()
            gateways[port] = stack.enter_context(gateway_process(redis_url, folder, port))
        for port in gateways:
            await until(lambda port=port: ready(port), 60)
        crowd = Crowd(gateways)
        yield crowd
        await crowd.client.aclose()


async def work(out: Outside, thread_id: str) -> None:
    """A worker that takes the thread's head run, again and again, until nothing is left."""
    runner = Runner(out, a_runtime(Slow([turn("Done.")])))
    signals = Signals()

    async def watch() -> None:
        while True:
            for run_id in await out.store.cancel_requested(runner.running()):
                runner.cancel(run_id)
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    while True:
        for run_id in (await out.store.unfinished(thread_id))[:1]:
            await runner.execute(run_id, "w1", signals)
        await asyncio.sleep(0.001)
        if watching.done():
            watching.result()


async def storm(crowd: Crowd, out: Outside, on_busy: str) -> tuple[str, list[httpx.Response]]:
    """Two hundred requests at once on one thread, all answered, and nothing left to do."""
    port = next(iter(crowd.gateways))
    opened = await crowd.client.post(f"http://127.0.0.1:{port}/api/agent/initiate")
    thread_id = str(opened.json()["thread_id"])
    working = asyncio.create_task(work(out, thread_id))
    asyncio.get_running_loop().call_later(0.3, crowd.kill_one)
    answers = await asyncio.gather(*(crowd.execute(thread_id, number, on_busy) for number in range(REQUESTS)))

    async def quiet() -> bool:
        assert not working.done()
        return not await out.store.unfinished(thread_id)

    await until(quiet, 60)
    await cancel([working])
    assert len(crowd.gateways) == 2
    return thread_id, answers


async def history(out: Outside, thread_id: str) -> list[JSON]:
    return [orjson.loads(entry.event) for entry in await out.store.events(thread_id, count=100_000)]


async def test_enqueued_runs_all_succeed_in_the_order_in_which_they_came(crowd: Crowd, out: Outside) -> None:
    thread_id, answers = await storm(crowd, out, "enqueue")
    assert Counter(answer.status_code for answer in answers) == {200: REQUESTS}
    events = await history(out, thread_id)
    queued, started, completed = (
        [event["run_id"] for event in events if event["type"] == kind]
        for kind in ("run.queued", "run.started", "run.completed")
    )
    assert len(set(queued)) == len(queued) == REQUESTS
    assert queued == started == completed


async def test_rejected_requests_leave_no_trace_and_never_two_runs_overlap(crowd: Crowd, out: Outside) -> None:
    thread_id, answers = await storm(crowd, out, "reject")
    accepted = {answer.json()["run_id"] for answer in answers if answer.status_code == 200}
    assert {answer.status_code for answer in answers} == {200, 409}
    events = await history(out, thread_id)
    assert {event["run_id"] for event in events} == accepted
    ends = [event["type"] for event in events if event["type"] in ("run.queued", *TERMINAL)]
    assert ends == ["run.queued", "run.completed"] * len(accepted)


@pytest.mark.parametrize("on_busy", ["interrupt", "rollback"])
async def test_the_last_one_wins_and_what_it_interrupted_is_canceled(crowd: Crowd, out: Outside, on_busy: str) -> None:
    thread_id, answers = await storm(crowd, out, on_busy)
    assert Counter(answer.status_code for answer in answers) == {200: REQUESTS}
    events = await history(out, thread_id)
    order = [event["run_id"] for event in events if event["type"] == "run.queued"]
    assert len(set(order)) == len(order) == REQUESTS
    end = {event["run_id"]: event["type"] for event in events if event["type"] in TERMINAL}
    assert end[order[-1]] == "run.completed"
    assert Counter(end.values())["run.canceled"] > 0
    for place, event in enumerate(events):
        if event["type"] == "run.queued":
            ended_before = {e["run_id"] for e in events[:place] if e["type"] in TERMINAL}
            interrupted = order[: order.index(event["run_id"])]
            assert all(run_id in ended_before or end[run_id] == "run.canceled" for run_id in interrupted)
    messages = await out.store.messages(thread_id)
    completed = [run_id for run_id in order if end[run_id] == "run.completed"]
    if on_busy == "rollback":
        assert [message["role"] for message in messages] == ["user", "assistant"] * len(completed)
    assert not [pair for pair in itertools.pairwise(messages) if pair[0]["role"] == pair[1]["role"] == "assistant"]
