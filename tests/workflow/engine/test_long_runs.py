"""What a run costs follows its steps: ten times as many cost ten times as much, counted and not timed."""

import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

import pytest

from shared.ids import new_run_id, new_thread_id, shard_of, thread_of
from shared.redis import connect
from shared.threads.types import NewRun, NewThread
from shared.types import RunStatus
from tests.workflow.fleet import Fleet, as_any
from tests.workflow.support import Ledger, Playbook, a_runtime, turn
from workflow.engine.durable import DurableFunction, durable
from workflow.engine.remembered import Remembered
from workflow.engine.step import Step
from workflow.runner import Runner, Signals, take_from

TEN_TIMES = [pytest.param(40, id="400"), pytest.param(500, id="5000", marks=pytest.mark.slow)]
SLACK = 1.3
"""Numbers grow a digit and hash tables double, but what is quadratic grows a hundredfold."""


class LastingFleet(Fleet):
    """Its worker is the same one all the time."""

    @cached_property
    def runner(self) -> Runner:
        return super().runner


@pytest.fixture
async def fleet(redis_url: str) -> AsyncIterator[Fleet]:
    client = connect(redis_url, timeout_seconds=5, max_connections=50)
    yield LastingFleet(client)
    await client.aclose()


@dataclass(frozen=True)
class Cost:
    """`read`: bytes that Redis sent; `kept`: bytes of Redis' memory; `memory`: the most of the worker's, in bytes."""

    commands: int
    read: int
    kept: int
    memory: int


async def cost_of(fleet: Fleet, work: Callable[[], Awaitable[Any]]) -> Cost:
    before = await as_any(fleet.client.info("stats"))
    kept = await _kept(fleet)
    tracemalloc.start()
    await work()
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    after = await as_any(fleet.client.info("stats"))
    counted = [after[name] - before[name] for name in ("total_commands_processed", "total_net_output_bytes")]
    return Cost(counted[0], counted[1], await _kept(fleet) - kept, memory)


async def _kept(fleet: Fleet) -> int:
    sizes = [fleet.client.memory_usage(key, samples=0) async for key in fleet.client.scan_iter("thread:*")]
    return sum([int(await as_any(size) or 0) for size in sizes])


async def costs(fleet: Fleet, run: Callable[[int], Awaitable[Any]], *counts: int) -> list[Cost]:
    """After one run that pays for what is only paid once."""
    await run(1)
    return [await cost_of(fleet, partial(run, count)) for count in counts]


def assert_tenfold(small: Cost, large: Cost) -> None:
    times = {name: asdict(large)[name] / max(1, value) for name, value in asdict(small).items()}
    assert max(times.values()) <= 10 * SLACK, times


async def finished(fleet: Fleet, count: int) -> str:
    """A run of so many steps, from its beginning to its end."""
    run_id = await fleet.submit("flow", count)
    await fleet.work()
    assert (await fleet.run(run_id)).status is RunStatus.SUCCEEDED
    return run_id


def working(then: Callable[[], None] = lambda: None) -> DurableFunction:
    @durable("flow")
    async def flow(step: Step, count: int) -> Any:
        async def work() -> Any:
            return "x" * 100

        for _ in range(count):
            await step.do("work", work)
        then()
        await step.do("last", work)

    return flow


@pytest.mark.parametrize("steps", TEN_TIMES)
async def test_a_run_costs_by_its_steps(fleet: Fleet, steps: int) -> None:
    fleet.functions.append(working())
    assert_tenfold(*await costs(fleet, partial(finished, fleet), steps, 10 * steps))


@pytest.mark.parametrize("steps", TEN_TIMES)
async def test_to_take_over_a_run_costs_by_its_steps(fleet: Fleet, steps: int) -> None:
    async def resumption(count: int) -> Cost:
        run_id = await fleet.submit("flow", count)
        await fleet.runner.execute(run_id, "dead", Signals())
        await take_from("dead", run_id, fleet.out.store, a_runtime(Playbook([]), client=fleet.client))
        cost = await cost_of(fleet, partial(another.execute, run_id, "w2", Signals()))
        assert (await fleet.run(run_id)).status is RunStatus.SUCCEEDED
        return replace(cost, kept=0)

    fleet.functions.append(working(then=lambda: fleet.runner.drop("dead")))
    another = Runner(fleet.out, a_runtime(Playbook([]), client=fleet.client, functions=fleet.functions))
    await resumption(1)
    assert_tenfold(await resumption(steps), await resumption(10 * steps))


@pytest.mark.parametrize("waits", [pytest.param(20, id="200"), pytest.param(100, id="1000", marks=pytest.mark.slow)])
async def test_a_run_that_waits_again_and_again_reads_its_journal_once(fleet: Fleet, waits: int) -> None:
    @durable("flow")
    async def flow(step: Step, count: int) -> Any:
        for _ in range(count):
            await step.sleep(0)

    async def run(count: int) -> None:
        run_id = await fleet.submit("flow", count)
        for _ in range(count + 1):
            await fleet.runner.execute(run_id, "w1", Signals())
            for timer in await fleet.out.store.timers.due([shard_of(thread_of(run_id))], 10):
                await fleet.out.answers.on_time(timer)
        assert (await fleet.run(run_id)).status is RunStatus.SUCCEEDED

    fleet.functions.append(flow)
    assert_tenfold(*await costs(fleet, run, waits, 10 * waits))


@pytest.mark.parametrize("turns", [pytest.param(20, id="200"), pytest.param(100, id="1000", marks=pytest.mark.slow)])
async def test_an_agents_run_costs_by_its_turns(fleet: Fleet, turns: int) -> None:
    async def run(count: int) -> None:
        book = Playbook([*(turn("I look.", (f"call-{n}", "look", "{}")) for n in range(count)), turn("Done.")])
        book.context_tokens = 10**9
        thread = await fleet.out.store.create_thread(NewThread(new_thread_id(), "w"))
        run_id = new_run_id(thread.id)
        new = NewRun(run_id, "w", {"task": "Look."}, parameters={"max_turns": 10**6, "max_seconds": 10**6})
        await fleet.out.store.submit(new, queued={})
        await Runner(fleet.out, a_runtime(book, Ledger())).execute(run_id, "w1", Signals())
        assert (await fleet.run(run_id)).status is RunStatus.SUCCEEDED

    assert_tenfold(*await costs(fleet, run, turns, 10 * turns))


async def test_all_pages_of_the_steps_cost_by_the_steps(fleet: Fleet) -> None:
    async def pages(run_id: str) -> list[int]:
        numbers: list[int] = []
        while found := await fleet.out.store.steps(run_id, len(numbers), 10):
            numbers += [step.number for step in found]
        return numbers

    async def reading(count: int) -> int:
        run_id = await finished(fleet, count)
        assert await pages(run_id) == [*range(1, count + 2)]
        return (await cost_of(fleet, partial(pages, run_id))).read

    fleet.functions.append(working())
    assert await reading(500) <= 10 * SLACK * await reading(50)


async def test_a_worker_remembers_no_more_than_it_may_and_forgets_the_oldest(fleet: Fleet) -> None:
    remembered = Remembered(max_bytes=3000)
    for number in range(3):
        run_id = await fleet.submit("flow", "x" * 100)
        attempt = await fleet.out.store.claim(run_id, "w1", str(number))
        assert attempt is not None
        attempt.size = 1400
        remembered.keep(attempt)
        remembered.keep(attempt)
    runs = await as_any(fleet.client.lrange("rung", 0, -1))
    assert [remembered.take(run_id) is not None for run_id in runs] == [False, True, True]
    assert [remembered.take(run_id) for run_id in runs] == [None] * 3
