"""Large values in flows: kept apart, read when they are asked for, refused in words above the limit."""

import asyncio
from typing import Any

import orjson
import pytest

from shared.config import PayloadsSettings
from shared.errors import AppError, ErrorCode
from shared.keys import thread_keys_of
from shared.threads import again
from shared.threads.brief import EVENT_BYTES
from shared.types import RunStatus, StepStatus
from tests.workflow.fleet import Fleet, as_any
from workflow.engine.durable import durable
from workflow.engine.retry import Retry
from workflow.engine.step import Step

INLINE = PayloadsSettings().inline_bytes
MAX = PayloadsSettings().max_bytes
LARGE = "x" * INLINE


async def blobs_read(fleet: Fleet) -> int:
    """Since the server began; nothing else uses GET on a key of its own."""
    stats = await as_any(fleet.client.info("commandstats"))
    return int(stats.get("cmdstat_get", {"calls": 0})["calls"])


async def blobs(fleet: Fleet) -> int:
    return len([key async for key in fleet.client.scan_iter("*:blob:*")])


def giving(result: Any) -> Any:
    async def fn() -> Any:
        return result

    return fn


@pytest.mark.parametrize(("chars", "apart"), [(INLINE - 2, 0), (INLINE - 1, 1)])
async def test_a_result_of_64_kib_stands_in_the_journal_and_one_byte_more_apart(
    fleet: Fleet, chars: int, apart: int
) -> None:
    async def flow(step: Step, _: Any) -> Any:
        return len(await step.do("big", giving("x" * chars)))

    run = await fleet.until(await fleet.start(flow), RunStatus.SUCCEEDED)
    [step] = await fleet.out.store.journal(run.id)
    assert (step.payload is not None, step.result is None) == (bool(apart), bool(apart))
    assert (run.output, await blobs(fleet)) == (chars, apart)


async def test_a_resumed_run_reads_a_large_result_when_it_comes_to_it_and_no_other(fleet: Fleet) -> None:
    seen: list[tuple[str, int]] = []

    async def flow(step: Step, _: Any) -> Any:
        first = await step.do("first", giving(LARGE + "1"))
        await step.do("small", giving(1))
        seen.append(("after the first", await blobs_read(fleet)))
        await step.sleep(0)
        second = await step.do("second", giving(LARGE + "2"))
        await step.sleep(0)
        seen.append(("at the end", await blobs_read(fleet)))
        return [first[-1], second[-1]]

    start = await blobs_read(fleet)
    run = await fleet.until(await fleet.start(flow), RunStatus.SUCCEEDED)
    assert (run.output, run.epoch) == (["1", "2"], 3)
    counts = [(place, count - start) for place, count in seen]
    assert counts == [("after the first", 0), ("after the first", 1), ("after the first", 2), ("at the end", 3)]


async def test_large_inputs_outputs_and_answers_travel_whole_between_runs(fleet: Fleet) -> None:
    async def child(_: Step, input: Any) -> Any:
        return input[::-1]

    fleet.functions.append(durable("child")(child))

    async def flow(step: Step, input: Any) -> Any:
        await step.publish("told", input + "b")
        event = await step.wait_for_event("told")
        return await step.call("function:child", event + "c")

    run = await fleet.until(await fleet.start(flow, LARGE + "a"), RunStatus.SUCCEEDED)
    assert (run.input, run.output) == (None, None)
    value = fleet.out.store.payloads.value
    assert await value(run.input, run.input_ref) == {"input": LARGE + "a"}
    assert await value(run.output, run.output_ref) == "cba" + LARGE
    [_, _, called] = await fleet.out.store.journal(run.id)
    assert called.wait is not None
    assert called.wait.request_ref is not None
    record = await as_any(fleet.client.hvals(thread_keys_of(run.id).run(run.id)))
    assert max(map(len, record)) < 1000


async def test_no_event_is_longer_than_its_cap_whatever_it_tells_of(fleet: Fleet) -> None:
    async def flow(step: Step, _: Any) -> Any:
        await step.emit("progress", {"percent": 7, "table": LARGE})
        await step.emit("crowd", {f"field {number}": number for number in range(10_000)})
        return LARGE

    run = await fleet.until(await fleet.start(flow, LARGE), RunStatus.SUCCEEDED)
    events = [orjson.loads(entry.event) for entry in await fleet.out.store.events(run.thread_id)]
    assert max(len(orjson.dumps(event["data"])) for event in events) <= EVENT_BYTES
    by_type = {event["type"]: event for event in events}
    told = by_type["progress"]["data"]
    assert told == {"percent": 7, "table": None, "table_ref": {"sha256": told["table_ref"]["sha256"], "bytes": 65538}}
    assert by_type["crowd"]["data"].keys() == {"data_ref"}
    assert by_type["run.completed"]["data"]["output_ref"] == (run.output_ref and run.output_ref.shown())
    step = await fleet.out.store.step(run.id, int(by_type["progress"]["step_id"].rpartition(".")[2]))
    assert step is not None
    assert (await fleet.out.store.payloads.value(step.result, step.payload))["table"] == LARGE


async def test_a_result_above_ten_megabytes_fails_the_run_in_words_without_another_try(fleet: Fleet) -> None:
    tries: list[int] = []

    async def fetch() -> str:
        tries.append(1)
        return "x" * (MAX - 1)

    async def flow(step: Step, _: Any) -> Any:
        kept = await step.do("before", giving("kept"))
        await step.do("fetch", fetch, retry=Retry(5, backoff_seconds=0))
        return kept

    run = await fleet.until(await fleet.start(flow), RunStatus.FAILED)
    assert run.error is not None
    assert run.error["code"] == ErrorCode.RESULT_TOO_LARGE
    assert "step fetch has 10,485,761 bytes" in run.error["detail"]
    assert "10,485,760" in run.error["detail"]
    assert "Write the data to a file" in run.error["detail"]
    assert len(tries) == 1
    before, fetched = await fleet.out.store.journal(run.id)
    assert (before.result, fetched.status, await blobs(fleet)) == ("kept", StepStatus.FAILED, 0)


async def test_after_the_step_is_mended_the_retry_keeps_what_was_finished(fleet: Fleet) -> None:
    calls: list[str] = []
    sizes = [MAX, MAX - 2]

    async def flow(step: Step, _: Any) -> Any:
        async def first() -> str:
            calls.append("first")
            return LARGE

        async def second() -> str:
            return "x" * sizes.pop(0)

        return [len(await step.do("first", first)), len(await step.do("second", second))]

    failed = await fleet.until(await fleet.start(flow), RunStatus.FAILED)
    new_id = f"{failed.thread_id}.{failed.id.rpartition('.')[2][::-1]}"
    await fleet.out.ring((await again.retry(fleet.out.store, failed, new_id, key_id=None)).ring)
    run = await fleet.until(new_id, RunStatus.SUCCEEDED)
    assert (run.output, calls) == ([INLINE, MAX - 2], ["first"])


async def test_a_flow_may_heed_that_a_result_was_too_large(fleet: Fleet) -> None:
    async def flow(step: Step, _: Any) -> Any:
        try:
            await step.do("fetch", giving("x" * MAX))
        except AppError as error:
            await step.sleep(0)
            return error.code

    run = await fleet.until(await fleet.start(flow), RunStatus.SUCCEEDED)
    assert (run.output, run.epoch) == (ErrorCode.RESULT_TOO_LARGE, 2)


@pytest.mark.parametrize("what", ["The run's output", "The payload of event 'told'", "The request of step approve"])
async def test_each_large_thing_is_refused_by_its_name(fleet: Fleet, what: str) -> None:
    async def flow(step: Step, _: Any) -> Any:
        if "event" in what:
            await step.publish("told", "x" * MAX)
        if "request" in what:
            await step.approve("x" * MAX)
        return "x" * MAX

    run = await fleet.until(await fleet.start(flow), RunStatus.FAILED)
    assert run.error is not None
    assert run.error["code"] == ErrorCode.RESULT_TOO_LARGE
    assert run.error["detail"].startswith(what)


async def test_a_branch_that_reads_a_large_result_is_waited_for_by_one_that_goes_on(fleet: Fleet) -> None:
    async def flow(step: Step, _: Any) -> Any:
        async def left() -> Any:
            await step.do("big", giving(LARGE * 20))
            return await step.do("after", giving(1))

        async def right() -> Any:
            await step.sleep(0.05)
            return await step.do("new", giving(2))

        return await asyncio.gather(left(), right())

    run_id = await fleet.start(flow)
    async with asyncio.timeout(10):
        while not (run := await fleet.run(run_id)).status.terminal:
            await fleet.work()
            await asyncio.sleep(0.02)
    assert (run.output, run.error) == ([1, 2], None)


@pytest.mark.parametrize("inside_a_step", [True, False])
async def test_what_a_users_code_raises_is_recorded_clipped_and_is_the_same_on_replay(
    fleet: Fleet, inside_a_step: bool
) -> None:
    seen: list[str] = []

    async def fail() -> None:
        raise ValueError("begin " + "x" * 10**6 + " sk-proj-abcdefgh12345678")

    async def flow(step: Step, _: Any) -> Any:
        if not inside_a_step:
            await fail()
        try:
            await step.do("fail", fail)
        except AppError as error:
            seen.append(error.detail)
        await step.sleep(0)
        raise ValueError(seen[-1])

    run = await fleet.until(await fleet.start(flow), RunStatus.FAILED)
    assert run.error is not None
    assert len(run.error["detail"]) <= 10_000
    assert run.error["detail"].startswith("ValueError: ")
    assert "clipped" in run.error["detail"]
    assert len(set(seen)) == int(inside_a_step)
    assert all(len(detail) <= 10_000 for detail in seen)
