"""A record never names a blob that is gone, and a blob that nothing names is gone after its hour.

Hypothesis writes, dies between blob and transition, lets the hour pass at the worst moment, retries and forks; after
every step all that is recorded is read back.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as play
from redis.asyncio import Redis

from shared.config import PayloadsSettings, Settings
from shared.events.outside import Outside
from shared.ids import SHARDS, new_run_id, new_thread_id, thread_of
from shared.payloads.blobs import Ref
from shared.redis import connect
from shared.threads import again
from shared.threads.attempt import Attempt, Change
from shared.threads.steps import Answer, StepRecord, Wait
from shared.threads.types import NewRun, NewThread
from shared.types import Runnable, RunStatus, StepStatus, WaitKind
from tests.shared.payloads.conftest import INLINE_BYTES, MAX_BYTES

LARGE = st.sampled_from([False, True, True])


class Life(RuleBasedStateMachine):
    """Runs with large values in each place where one can be, and what should be found there."""

    url: str
    folder: Path
    store_name: Any

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.Runner()
        self.client: Redis = connect(self.url, timeout_seconds=5, max_connections=4)
        chosen = PayloadsSettings(
            inline_bytes=INLINE_BYTES, max_bytes=MAX_BYTES, spill_bytes=3 * INLINE_BYTES // 2, store=self.store_name
        )
        self.out = Outside.over(self.client, Settings(data=self.folder, payloads=chosen), _no_ring, patience_seconds=2)
        self.store = self.out.store
        self.attempts: list[Attempt] = []
        self.ended: list[str] = []
        self.expected: dict[str, dict[str, Any]] = {}
        self.numbers = itertools.count(1)
        self.late = False
        self._let_the_hour_pass_between_blob_and_transition()
        self.do(self.begin(large=True))

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            try:
                self.do(self.nothing_is_left_that_nothing_names())
            finally:
                self.do(self.client.flushall())
                self.do(self.client.aclose())
                self.loop.close()

    def do(self, call: Any) -> Any:
        return self.loop.run(_awaited(call))

    def _let_the_hour_pass_between_blob_and_transition(self) -> None:
        call = self.store._scripts.call

        async def late(name: str, keys: list[str], args: list[Any], **how: Any) -> Any:
            if self.late and name in ("submit", "commit", "release", "signal"):
                self.late = False
                await self.pass_an_hour()
            return await call(name, keys, args, **how)

        self.store._scripts.call = late  # type: ignore[assignment, method-assign]

    def value(self, *, large: bool) -> Any:
        """No two are the same, but for every third."""
        number = next(self.numbers)
        return {"n": number - number % 3, "text": "x" * (INLINE_BYTES * (1 + number % 2) if large else 10)}

    async def begin(self, *, large: bool) -> None:
        thread = await self.store.create_thread(NewThread(new_thread_id(), "w"))
        run_id, value = new_run_id(thread.id), self.value(large=large)
        new = NewRun(run_id, "w", {"input": value}, runnable_type=Runnable.FUNCTION, runnable_id="f")
        await self.store.submit(new, queued={})
        self.expected[run_id] = {"input": {"input": value}}
        await self.claim(run_id)

    async def claim(self, run_id: str) -> None:
        attempt = await self.store.claim(run_id, "worker", f"call-{next(self.numbers)}")
        assert attempt is not None
        assert await attempt.input() == self.expected[run_id]["input"]
        self.attempts.append(attempt)

    async def pass_an_hour(self) -> None:
        """For what nothing has named yet; and what is due is done, as by a sweeper."""
        async for key in self.client.scan_iter("timers:*"):
            for timer in await _awaited(self.client.zrange(key, 0, -1)):
                if timer.startswith("blob|"):
                    await self.client.zadd(key, {timer: 1}, xx=True)
        async for key in self.client.scan_iter("*:copy:*"):
            await self.client.delete(key)
        for timer in await self.store.timers.due(range(SHARDS), 1000):
            await self.out.answers.on_time(timer)

    @precondition(lambda self: len(self.expected) < 8)
    @rule(large=LARGE)
    def another_run(self, large: bool) -> None:
        self.do(self.begin(large=large))

    @rule()
    def the_next_transition_comes_too_late(self) -> None:
        self.late = True

    @rule()
    def an_hour_passes(self) -> None:
        self.do(self.pass_an_hour())

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), large=LARGE)
    def commit(self, data: st.DataObject, large: bool) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        step = self.new_step(attempt, StepStatus.SUCCEEDED, result=self.value(large=large))
        self.do(attempt.commit(Change(steps=[step])))
        self.expected[attempt.run.id][step.key] = step.result

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def die_before_the_commit(self, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        step = self.new_step(attempt, StepStatus.SUCCEEDED, result=self.value(large=True))
        assert self.do(attempt._by_reference(step)).payload

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), asked=LARGE, answered=LARGE, late=st.booleans())
    def ask_and_answer(self, data: st.DataObject, asked: bool, answered: bool, late: bool) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        wait = Wait(WaitKind.HUMAN, request=self.value(large=asked))
        step = self.new_step(attempt, StepStatus.WAITING_HUMAN, wait=wait)
        self.do(attempt.commit(Change(steps=[step])))
        answer = Answer(StepStatus.SUCCEEDED, result=self.value(large=answered))
        self.late = late
        assert self.do(self.store.signal(attempt.run.id, step.key, answer, [WaitKind.HUMAN])).answered
        self.expected[attempt.run.id] |= {step.key: answer.result, f"{step.key}?": wait.request}

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), large=LARGE, fails=st.booleans())
    def end(self, data: st.DataObject, large: bool, fails: bool) -> None:
        attempt = self.attempts.pop(data.draw(st.integers(0, len(self.attempts) - 1)))
        output = self.value(large=large)
        status = RunStatus.FAILED if fails else RunStatus.SUCCEEDED
        self.do(attempt.end(status, {"output": output}, {"output": output}))
        self.expected[attempt.run.id]["output"] = output
        self.ended.append(attempt.run.id)

    @precondition(lambda self: self.ended and len(self.expected) < 8)
    @rule(data=st.data(), how=st.sampled_from(["retry", "fork"]))
    def again(self, data: st.DataObject, how: str) -> None:
        """From two requests at once, as one that is sent again can be: whichever comes first, its copy is whole."""
        run = self.do(self.store.run(data.draw(st.sampled_from(self.ended))))
        if how == "retry" and (run.status is not RunStatus.FAILED or self.do(self.store.thread(run.thread_id)).head):
            return
        new_id = new_run_id(run.thread_id if how == "retry" else new_thread_id())

        def one() -> Awaitable[Any]:
            if how == "retry":
                return again.retry(self.store, run, new_id, key_id=None)
            thread = NewThread(thread_of(new_id), "w")
            return again.fork_run(self.store, run, thread, new_id, key_id=None, step=1_000_000, input=None)

        if not self.do(_both(one)):
            return  # their copies were left for an hour
        self.expected[new_id] = {key: value for key, value in self.expected[run.id].items() if key != "output"}
        self.do(self.claim(new_id))

    def new_step(self, attempt: Attempt, status: StepStatus, **fields: Any) -> StepRecord:
        number = max((step.number for step in attempt.journal.values()), default=0) + 1
        return StepRecord(f"step:{number}", number, "a step", "test", status, "h", **fields)

    @invariant()
    def all_that_is_recorded_can_be_read(self) -> None:
        for run_id, expected in getattr(self, "expected", {}).items():
            assert self.do(self.found(run_id)) == expected

    async def found(self, run_id: str) -> dict[str, Any]:
        run, value = await self.store.run(run_id), self.store.payloads.value
        assert run is not None
        found = {"input": await value(run.input, run.input_ref)}
        if run.status.terminal:
            found["output"] = await value(run.output, run.output_ref)
        for step in await self.store.journal(run_id):
            assert all(ref.thread_id == run.thread_id for ref in step.refs), "no two threads share a blob's life"
            found[step.key] = await value(step.result, step.payload)
            if step.wait:
                found[f"{step.key}?"] = await value(step.wait.request, step.wait.request_ref)
        return found

    async def nothing_is_left_that_nothing_names(self) -> None:
        await self.pass_an_hour()
        await self.pass_an_hour()
        named: set[str] = set()
        for run_id in self.expected:
            run = await self.store.run(run_id)
            assert run is not None
            steps = await self.store.journal(run_id)
            named |= _names([run.input_ref, run.output_ref, *(ref for step in steps for ref in step.refs)])
        in_redis = {key.split(":blob:")[1] async for key in self.client.scan_iter("*:blob:*")}
        in_folder = {path.name for path in self.folder.rglob("*.*") if path.is_file()}
        assert in_redis | in_folder == named
        for path in self.folder.rglob("*.*"):
            path.unlink()


def _names(refs: Iterable[Ref | None]) -> set[str]:
    return {ref.name for ref in refs if ref}


async def _no_ring(_: str | None) -> None:
    pass


async def _awaited(call: Any) -> Any:
    return await call


async def _both(one: Callable[[], Awaitable[Any]]) -> bool:
    """Whether one of the two was accepted."""
    outcomes = await asyncio.gather(one(), one(), return_exceptions=True)
    return any(not isinstance(outcome, BaseException) for outcome in outcomes)


@pytest.mark.parametrize("store", ["redis", "folder"])
def test_whatever_dies_or_comes_late_a_record_names_what_is_there(redis_url: str, tmp_path: Path, store: str) -> None:
    Life.url, Life.folder, Life.store_name = redis_url, tmp_path, store
    play(
        Life,
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # ids and times are others in each replay: there is nothing to shrink
        ),
    )
