"""The thread store under crashes, zombies, repeated calls and double deliveries, against a real Valkey.

Hypothesis drives the store as a hostile fleet would; after every step the whole of Redis is read back and judged.
"""

import asyncio
import itertools
from typing import Any, TypeVar

import orjson
import redis.asyncio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shared.errors import AppError
from shared.ids import new_run_id, new_thread_id
from shared.keys import ThreadKeys
from shared.redis import connect
from shared.threads.attempt import Attempt, Change, Fenced, GoOn, IllegalStep
from shared.threads.steps import Answer, StepRecord, Wait
from shared.threads.store import ThreadStore, after
from shared.threads.types import BusyPolicy, NewEvent, NewRun, NewThread, Origin, Run
from shared.types import EventType, RunStatus, StepStatus, WaitKind

MAX_ATTEMPTS = 3
SETTINGS = settings(max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck), database=None)
STATUS_AFTER = {
    "run.queued": RunStatus.PENDING,
    "run.started": RunStatus.RUNNING,
    "run.resumed": RunStatus.RUNNING,
    "run.interrupted": RunStatus.PENDING,
    "run.waiting": RunStatus.WAITING,
    "run.completed": RunStatus.SUCCEEDED,
    "run.failed": RunStatus.FAILED,
    "run.canceled": RunStatus.CANCELED,
}
LEGAL = {
    RunStatus.PENDING: {RunStatus.PENDING, RunStatus.RUNNING, RunStatus.CANCELED},
    RunStatus.RUNNING: set(RunStatus),
    RunStatus.WAITING: {RunStatus.WAITING, RunStatus.PENDING},
    **{status: {status} for status in RunStatus if status.terminal},
}
WORKERS = ("a", "b")
POLICIES: tuple[BusyPolicy, ...] = ("enqueue", "reject", "interrupt", "rollback")
T = TypeVar("T")


class Fleet(RuleBasedStateMachine):
    """Two threads, two workers, and every attempt there ever was: a zombie is one that has been taken over."""

    url: str

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.Runner()
        self.client: redis.asyncio.Redis = connect(self.url, timeout_seconds=5, max_connections=4)
        self.store = ThreadStore(self.client, ring_seconds=5, patience_seconds=2)
        self.threads = [new_thread_id(), new_thread_id()]
        self.runs: list[str] = []
        self.attempts: list[Attempt] = []
        self.seen: dict[str, Run] = {}
        self.results: dict[str, Any] = {}
        self.committed_messages = dict.fromkeys(self.threads, 0)
        self.begins: dict[str, int] = {}
        self.open_waits: set[tuple[str, str]] = set()
        self.numbers = itertools.count()
        self.calls: list[tuple[str, list[str], list[Any]]] = []
        self._repeat_calls()
        for thread_id in self.threads:
            self.do(self.store.create_thread(NewThread(thread_id, "w")))

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.do(self.client.flushall())
            self.do(self.client.aclose())
            self.loop.close()

    def do(self, call: Any) -> Any:
        return self.loop.run(_awaited(call))

    def _repeat_calls(self) -> None:
        """A client library repeats a call whose answer was lost: the second answer is the one that counts."""
        call = self.store._scripts.call

        async def twice(name: str, keys: list[str], args: list[Any], **how: Any) -> Any:
            self.calls.append((name, keys, args))
            answer = await call(name, keys, args, **how)
            return await call(name, keys, args, **how) if next(self.numbers) % 2 else answer

        self.store._scripts.call = twice  # type: ignore[assignment, method-assign]
        self.deliver = call

    @precondition(lambda self: len(self.calls) > 4)
    @rule(data=st.data())
    def deliver_late(self, data: st.DataObject) -> None:
        """A network delivers once more what was sent long ago. Only a claim that was refused then may succeed now."""
        numbered = [c for c in self.calls if c[0] in ("submit", "claim", "emit", "commit", "release")]
        name, keys, args = data.draw(st.sampled_from(numbered))
        before = self.do(self.contents())
        self.do(self.deliver(name, keys, args))
        if self.do(self.contents()) != before:
            assert name == "claim"
            assert self.seen[args[1]].status is RunStatus.PENDING

    async def contents(self) -> list[Any]:
        return sorted([[key, await self.client.dump(key)] async for key in self.client.scan_iter()])

    @precondition(lambda self: len(self.runs) < 8)
    @rule(thread=st.integers(0, 1), policy=st.sampled_from(POLICIES), retries=st.booleans())
    def submit(self, thread: int, policy: BusyPolicy, retries: bool) -> None:
        run_id = new_run_id(self.threads[thread])
        first = next((earlier for earlier in self.runs if earlier.startswith(self.threads[thread])), None)
        origin = Origin(first, "retried_from", 1, 0, None, None, None) if first and retries else None
        earlier = [run.id for run in self.seen.values() if run.thread_id == self.threads[thread]]
        busy = any(not run.status.terminal for run in self.seen.values() if run.thread_id == self.threads[thread])
        try:
            self.do(self.store.submit(NewRun(run_id, "w", {"task": "x"}, origin=origin), queued={}, on_busy=policy))
            self.runs.append(run_id)
            assert not (busy and policy == "reject")
        except AppError:
            assert busy
            assert policy == "reject"
        if policy in ("interrupt", "rollback"):
            for run in [self.do(self.store.run(run_id)) for run_id in earlier]:
                assert run.status.terminal or run.cancel_requested

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), worker=st.sampled_from(WORKERS))
    def claim(self, data: st.DataObject, worker: str) -> None:
        pending = [run.id for run in self.seen.values() if run.status is RunStatus.PENDING]
        run_id = self.draw(data, pending, self.runs)
        attempt = self.do(self.store.claim(run_id, worker, f"claim.{next(self.numbers)}"))
        if attempt is None:
            assert self.do(self.store.run(run_id)).epoch == self.seen[run_id].epoch
        else:
            assert self.seen[run_id].status is RunStatus.PENDING
            self.attempts.append(attempt)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def emit(self, data: st.DataObject) -> None:
        attempt = self.draw_attempt(data)
        self.write(attempt, attempt.emit([NewEvent(EventType.AGENT_DELTA, {"text": "é"}, 1)]))

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), key=st.sampled_from(["one", "two"]), status=st.sampled_from(["running", "succeeded"]))
    def commit(self, data: st.DataObject, key: str, status: str) -> None:
        attempt = self.draw_attempt(data)
        finished = f"{attempt.run.id}/{key}" in self.results
        step = StepRecord(key, 1, key, "test", StepStatus(status), "h", result=next(self.numbers))
        event = NewEvent(EventType.STEP_COMPLETED if status == "succeeded" else EventType.STEP_STARTED, {"key": key}, 1)
        base = {} if self.seen[attempt.run.id].base is not None else {"base": self.count(attempt.run.thread_id)}
        message = {"role": "user", "content": "x"}
        change = Change(steps=[step], events=[event], messages=[message], run={"step": 1, **base})
        try:
            if not self.write(attempt, attempt.commit(change)):
                return
        except IllegalStep:
            assert finished
            return
        assert not finished
        self.begins.setdefault(attempt.run.id, self.count(attempt.run.thread_id))
        self.committed_messages[attempt.run.thread_id] += 1
        if status == "succeeded":
            self.results[f"{attempt.run.id}/{key}"] = step.result

    @precondition(lambda self: len(self.attempts) > 3)
    @rule(data=st.data(), status=st.sampled_from([RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELED]))
    def end(self, data: st.DataObject, status: RunStatus) -> None:
        attempt = self.draw_attempt(data)
        run = self.seen[attempt.run.id]
        try:
            if self.write(attempt, attempt.end(status, {"output": "x"}, {"output": "x"}, taken=run.inbox)):
                assert status is RunStatus.CANCELED or not run.cancel_requested
        except GoOn:
            assert status is not RunStatus.CANCELED
            assert run.cancel_requested
            assert attempt.canceled.is_set()

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), key=st.sampled_from(["w1", "w2"]), timed=st.booleans(), human=st.booleans())
    def open_a_wait(self, data: st.DataObject, key: str, timed: bool, human: bool) -> None:
        attempt = self.draw_attempt(data)
        wait = Wait(WaitKind.HUMAN if human else WaitKind.EVENT, until=4_000_000_000_000 if timed else None)
        status = StepStatus.WAITING_HUMAN if human else StepStatus.WAITING
        step = StepRecord(key, 1, key, "test", status, "h", wait=wait)
        try:
            if self.write(attempt, attempt.commit(Change(steps=[step]))):
                self.open_waits.add((attempt.run.id, key))
        except IllegalStep:
            assert any(found.key == key for found in self.do(self.store.journal(attempt.run.id)))

    @precondition(lambda self: self.open_waits)
    @rule(data=st.data())
    def park(self, data: st.DataObject) -> None:
        attempt = self.draw_attempt(data)
        run = self.seen[attempt.run.id]
        steps = [step for step in self.do(self.store.journal(run.id)) if step.wait]
        still_open = all((run.id, step.key) in self.open_waits for step in steps)
        try:
            answered: list[StepRecord] = []

            async def wait() -> None:
                answered.extend(await attempt.wait(steps))

            if self.write(attempt, wait()):
                assert not run.cancel_requested
                assert bool(answered) is not still_open
                assert {(run.id, step.key) for step in answered}.isdisjoint(self.open_waits)
        except GoOn:
            assert run.cancel_requested

    @precondition(lambda self: self.open_waits)
    @rule(data=st.data(), fail=st.booleans())
    def signal(self, data: st.DataObject, fail: bool) -> None:
        likely = [pair for pair in sorted(self.open_waits) if not self.seen[pair[0]].status.terminal]
        run_id, key = self.draw(data, likely, sorted(self.open_waits))
        answer = Answer(StepStatus.FAILED if fail else StepStatus.SUCCEEDED, result=next(self.numbers))
        signaled = self.do(self.store.signal(run_id, key, answer, [WaitKind.EVENT, WaitKind.HUMAN]))
        self.open_waits.discard((run_id, key))
        if self.seen[run_id].status is RunStatus.WAITING:
            assert signaled.ring == run_id

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def inject(self, data: st.DataObject) -> None:
        run = self.seen[data.draw(st.sampled_from(self.runs))]
        message = {"role": "user", "content": "y", "id": str(next(self.numbers))}
        assert self.do(self.store.inject(run.id, message)) is not run.status.terminal
        assert self.do(self.store.run(run.id)).inbox == run.inbox + (not run.status.terminal)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        attempt = self.draw_attempt(data)
        self.write(attempt, attempt.give_back("drain"))

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), worker=st.sampled_from(WORKERS))
    def crash(self, data: st.DataObject, worker: str) -> None:
        held = [run.id for run in self.seen.values() if run.worker == worker]
        run_id = self.draw(data, held, self.runs)
        self.do(self.store.expire(run_id, worker, max_attempts=MAX_ATTEMPTS))

    @precondition(lambda self: len(self.attempts) > 2)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(self.runs))
        self.do(self.store.cancel(run_id, reason="test"))

    def count(self, thread_id: str) -> int:
        return self.committed_messages[thread_id]

    def draw_attempt(self, data: st.DataObject) -> Attempt:
        return self.draw(data, [attempt for attempt in self.attempts if self.owns(attempt)], self.attempts)

    def draw(self, data: st.DataObject, likely: list[T], every: list[T]) -> T:
        """Mostly one where the call should work, now and then any."""
        careful = likely and data.draw(st.integers(0, 3)) > 0
        return data.draw(st.sampled_from(likely if careful else every))

    def owns(self, attempt: Attempt) -> bool:
        run = self.seen[attempt.run.id]
        return run.status is RunStatus.RUNNING and run.epoch == attempt.run.epoch

    def write(self, attempt: Attempt, call: Any) -> bool:
        """Whether the write was let in: exactly when the attempt still owns its run."""
        owner = self.owns(attempt)
        try:
            self.do(call)
        except Fenced:
            assert not owner
            return False
        except (IllegalStep, GoOn):
            assert owner
            raise
        assert owner
        return True

    @invariant()
    def redis_agrees_with_itself(self) -> None:
        for thread_id in getattr(self, "threads", []):
            self.do(self.judge(thread_id))

    async def judge(self, thread_id: str) -> None:
        k = ThreadKeys(thread_id)
        thread = await self.store.thread(thread_id)
        assert thread is not None
        events = [(e.id, orjson.loads(e.event)) for e in await self.store.events(thread_id, count=10_000)]
        ids = [event_id for event_id, _ in events]
        assert all(after(later, earlier) for earlier, later in itertools.pairwise(ids))
        assert thread.last_id == (ids[-1] if ids else "0-0")
        runs = [run for run_id in await self.store.run_ids(thread_id) if (run := await self.store.run(run_id))]
        assert {run.id for run in runs} == {run_id for run_id in self.runs if run_id.startswith(thread_id)}
        for run in runs:
            await self.judge_run(run, [event for _, event in events if event["run_id"] == run.id])
        assert len(await self.store.messages(thread_id)) == self.committed_messages[thread_id]

        unfinished = [run for run in runs if not run.status.terminal]
        assert [run.id for run in unfinished] == [
            *([thread.head] if thread.head else []),
            *[run_id async for run_id in _each(self.client.lrange(k.queue, 0, -1))],
        ]
        assert all(run.status is RunStatus.PENDING for run in unfinished[1:])
        assert {run.id for run in runs if run.status is RunStatus.WAITING} <= {thread.head}
        await self.judge_waits(k, runs)
        running = {run.id: run.worker for run in runs if run.status is RunStatus.RUNNING}
        live: Any = await self.client.hgetall(k.live)
        assert {run_id: worker for run_id, worker in live.items() if run_id.startswith(thread_id)} == running
        timers: Any = await self.client.zrange(k.rings, 0, -1)
        rings = [run_id for run_id in timers if run_id.startswith(thread_id)]
        assert rings == [run.id for run in unfinished[:1] if run.status is RunStatus.PENDING]

    async def judge_waits(self, k: ThreadKeys, runs: list[Run]) -> None:
        self.open_waits -= {pair for pair in self.open_waits if self.seen[pair[0]].status.terminal}
        timers: Any = await self.client.zrange(k.timers, 0, -1)
        for run in runs:
            mine = {key for run_id, key in self.open_waits if run_id == run.id}
            steps = {step.key: step for step in await self.store.journal(run.id) if step.wait}
            assert {key for key, step in steps.items() if step.open} == mine
            assert set(await _awaited(self.client.hkeys(k.waits(run.id)))) == mine
            timed = {key for key in mine if (wait := steps[key].wait) and wait.until}
            assert {timer.split("|", 2)[2] for timer in timers if timer.startswith(f"wake|{run.id}|")} == timed
            settled = {key for key in steps if key not in mine}
            assert {timer.split("|", 2)[2] for timer in timers if timer.startswith(f"clean|{run.id}|")} == settled

    async def judge_run(self, run: Run, events: list[dict[str, Any]]) -> None:
        before = self.seen.get(run.id)
        if before is not None:
            assert run.epoch >= before.epoch
            assert run.status in LEGAL[before.status]
        self.seen[run.id] = run
        assert events[0]["type"] == "run.queued"
        told = [STATUS_AFTER[e["type"]] for e in events if e["type"] in STATUS_AFTER][-1]
        assert told is run.status or (told is RunStatus.WAITING and run.status is RunStatus.PENDING)
        rolled_back = [e["data"]["messages"] for e in events if e["type"] == "run.rolled_back"]
        if run.status.terminal and (before is None or not before.status.terminal):
            self.judge_end(run, rolled_back)
        assert sum(e["type"] in ("run.started", "run.resumed") for e in events) == run.epoch
        assert sum(e["type"] == "run.started" for e in events) == min(run.epoch, 1)
        assert [e["attempt"] for e in events] == sorted(e["attempt"] for e in events)
        journal = {step.key: step for step in await self.store.journal(run.id)}
        done = {k: s.result for k, s in journal.items() if s.status is StepStatus.SUCCEEDED and not s.wait}
        mine = {key.split("/")[1]: value for key, value in self.results.items() if key.startswith(run.id)}
        assert done == mine
        reported = [e["data"]["key"] for e in events if e["type"] == "step.completed"]
        assert sorted(reported) == sorted(key for key in journal if journal[key].status is StepStatus.SUCCEEDED)

    def judge_end(self, run: Run, rolled_back: list[int]) -> None:
        """A rollback goes back to where the run began; otherwise what it did not get to stays (none is taken here)."""
        if run.rolled_back:
            assert rolled_back == ([self.begins[run.id]] if run.id in self.begins else [])
            self.committed_messages[run.thread_id] = self.begins.get(run.id, self.count(run.thread_id))
        elif run.epoch and run.status is not RunStatus.SUCCEEDED:
            self.committed_messages[run.thread_id] += run.inbox


async def _awaited(call: Any) -> Any:
    return await call


async def _each(call: Any) -> Any:
    for item in await call:
        yield item


def test_no_order_of_crashes_and_repeats_breaks_a_thread(redis_url: str) -> None:
    Fleet.url = redis_url
    run_state_machine_as_test(Fleet, settings=SETTINGS)
