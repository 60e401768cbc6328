"""What must hold when everything is healed (docs/reliability.md, "The promise"). Each check gives its violations."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from shared import keys
from shared.ids import stream_position
from shared.keys import thread_keys_of
from shared.threads.steps import StepRecord
from shared.threads.store import ThreadStore
from shared.threads.types import Run
from shared.types import RunStatus, StepStatus, WaitKind
from tests.chaos.fleet import Fleet
from tests.chaos.load import Job
from tests.support.eventsource import connection

INDEXES = (
    *("live:*", "rings:*", "timers:*", "deliveries:*", "waiters:*", "approvals:*", "thread:*:waits"),
    *("parked:*", "streams:*", "{budget:*}:held:*"),
)
"""Not of slots: an ended run's, whose worker died before it gave it back, is free once somebody wants it."""
NO_LEFTOVERS = ("blob|", ".last", ".over")
"""What entries begin with that may stay: a blob's marker for its hour, a budget's memory of a run's last calls."""
EMPTY_SECONDS = 60
"""Longer than the lease of a killed gateway's streams."""
READ_SECONDS = 30
EXACT = ("charge", "keyed")
ONCE = ("blind", "asking")

Event = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """One run as Redis has it. `events` are its own, with their stream ids under `id`."""

    job: Job | None
    """None: the run is a child."""
    canceled: bool
    """Whether its client, or its parent's, canceled it."""
    run: Run
    steps: list[StepRecord]
    given: frozenset[str]
    """The steps that it began with, finished by the run that it retries."""
    events: list[Event]

    @property
    def name(self) -> str:
        return f"{self.job.kind if self.job else 'child'} {self.run.id}"


class Checker:
    def __init__(self, fleet: Fleet, jobs: list[Job]) -> None:
        self._fleet = fleet
        self._jobs = [job for job in jobs if job.run_id]
        self._store = ThreadStore(fleet.redis, ring_seconds=5, patience_seconds=10)

    async def violations(self) -> list[str]:
        """Everything that is not as it must be."""
        found = await self._leftovers()
        self.seen = await self._read()
        for seen in self.seen:
            found += [f"{seen.name}: {fault}" for check in CHECKS for fault in check(seen)]
        found += self._ledger()
        for seen in self.seen:
            if seen.job:
                found += [f"{seen.name}: {fault}" for fault in await self._streamed(seen, seen.job)]
                found += [f"{seen.name}: {fault}" for fault in self._commanded(seen, seen.job)]
                found += [f"{seen.name}: {fault}" for fault in await self._told(seen, seen.job)]
        return found + await self._blobs()

    async def _read(self) -> list[Seen]:
        seen = [await self._run(job.run_id, job, job.canceled) for job in self._jobs]
        for one in list(seen):
            for step in one.steps:
                if step.wait and step.wait.kind is WaitKind.CHILD and step.wait.name:
                    seen.append(await self._run(step.wait.name, None, one.canceled))
        return seen

    async def _run(self, run_id: str, job: Job | None, canceled: bool) -> Seen:
        run = await self._store.run(run_id)
        assert run is not None, f"accepted, and lost: {run_id}"
        entries: list[Any] = await self._fleet.redis.xrange(thread_keys_of(run_id).stream) or []
        own = [(entry_id, fields["e"]) for entry_id, fields in entries if fields["r"] == run_id]
        events = [{"id": entry_id, **orjson.loads(event)} for entry_id, event in own]
        before = await self._store.journal(run.retried_from) if run.retried_from else []
        given = frozenset(step.key for step in before if step.finished)
        return Seen(job, canceled, run, await self._store.journal(run_id), given, events)

    async def _leftovers(self) -> list[str]:
        """Index entries, open waits and workers that nobody has. They are cleaned up after a run's end, not with it."""
        found: list[str] = []
        for _ in range(EMPTY_SECONDS * 2):
            found = [f"left behind: {entry}" async for entry in self._indexed()]
            names = [str(name) for name in await self._fleet.redis.zrange(keys.WORKERS, 0, -1)]
            cards = [key async for key in self._fleet.redis.scan_iter("worker:*")]
            labels = Counter(name.rpartition("-")[0] for name in names)
            if labels != Counter(worker.name for worker in self._fleet.workers) or len(cards) != len(names):
                found.append(f"workers: {names}, cards: {cards}")
            if not found:
                break
            await asyncio.sleep(0.5)
        return found

    async def _blobs(self) -> list[str]:
        """Each large value that a record names is there; each that nothing names is to be deleted in its hour."""
        refs = [
            ref for s in self.seen for ref in (s.run.input_ref, s.run.output_ref, *(r for p in s.steps for r in p.refs))
        ]
        named = {ref.name for ref in refs if ref}
        there = {key.rpartition(":")[2] async for key in self._fleet.redis.scan_iter("thread:*:blob:*", count=1000)}
        marked = {name async for name in self._marked()}
        return [
            *(f"large value lost: {name}" for name in named - there),
            *(f"large value left behind: {name}" for name in there - named - marked),
            *(["no large values: too few to mean anything"] if not named and len(self.seen) > 20 else []),
        ]

    async def _marked(self) -> Any:
        async for key in self._fleet.redis.scan_iter("timers:*", count=1000):
            timers: Any = await self._fleet.redis.zrange(key, 0, -1)
            for timer in timers:
                if timer.startswith("blob|"):
                    yield timer.rpartition("/")[2]

    async def _indexed(self) -> Any:
        for pattern in INDEXES:
            async for key in self._fleet.redis.scan_iter(pattern, count=1000):
                kind = await self._fleet.redis.type(key)
                content: Any = await (
                    self._fleet.redis.hgetall(key) if kind == "hash" else self._fleet.redis.zrange(key, 0, -1)
                )
                if left := [entry for entry in content if not entry.startswith(NO_LEFTOVERS)]:
                    yield f"{key}: {left[:10]}"

    def _ledger(self) -> list[str]:
        found = []
        keys_of = self._fleet.ledger.keys_of_keyed()
        for seen in self.seen:
            for op, tool in _called(seen).items():
                if tool in EXACT:
                    count = len(keys_of[op])
                    missing = count == 0 and seen.run.status is RunStatus.SUCCEEDED and not _announced(seen)
                    if count > 1 or missing:
                        found.append(f"{seen.name}: {tool} {op} took effect {count} times")
                elif tool in ONCE:
                    found += self._blind(seen, op, tool)
        return found

    def _blind(self, seen: Seen, op: str, tool: str) -> Iterator[str]:
        """At most once, unless somebody was told that nobody knows, and said: repeat."""
        count, announced = self._fleet.ledger.blind(op), _announced(seen)
        if count > 1 + announced:
            yield f"{seen.name}: {tool} {op} took effect {count} times, {announced} of them announced"
        if count == 0 and not announced and seen.run.status is RunStatus.SUCCEEDED:
            yield f"{seen.name}: {tool} {op} is said to be done, and is not"

    def _commanded(self, seen: Seen, job: Job) -> Iterator[str]:
        """Each command of a sandbox job ran once, or not at all and the model was told that nobody knows."""
        if job.kind != "sandbox":
            return
        made = self._fleet.folder / "data" / "workspaces" / job.thread_id / "ran.txt"
        ran = made.read_text().count("x") if made.exists() else 0
        if not 2 - _announced(seen) <= ran <= 2:
            yield f"its two commands ran {ran} times"

    async def _told(self, seen: Seen, job: Job) -> list[str]:
        """A message that was taken is in the conversation, once, unless the run ended otherwise than well."""
        if not job.told or seen.run.status is not RunStatus.SUCCEEDED:
            return []
        messages = await self._store.messages(job.thread_id)
        count = sum(message.get("content") == f"told {job.op}" for message in messages)
        return [] if count == 1 else [f"its message is in the conversation {count} times"]

    async def _streamed(self, seen: Seen, job: Job) -> Iterator[str]:
        """What the client saw, piece by piece, is what a late reader sees, and what the stream has."""
        faults = list(job.faults)
        client = [event.id for event in job.events]
        if [stream_position(str(i)) for i in client] != sorted({stream_position(str(i)) for i in client}):
            faults.append("the client's stream is out of order or doubled")
        path = f"{self._fleet.gateway_urls[0]}/api/agent/{job.thread_id}/stream?run_id={job.run_id}"
        late = []
        try:
            async with asyncio.timeout(READ_SECONDS):
                async for event in connection(self._fleet.http, path):
                    late += [event] if event.id else []
        except TimeoutError:
            faults.append("its stream does not end")
        if late != job.events:
            faults.append(f"the client saw {len(job.events)} events, a late reader {len(late)}")
        if [event.id for event in late] != [event["id"] for event in seen.events]:
            faults.append(f"a late reader saw {len(late)} events, the stream has {len(seen.events)}")
        return iter(faults)


def _called(seen: Seen) -> dict[str, str]:
    """The tool of each effect that the run was to have. An agent that was told something else had done what it had."""
    ops = seen.job.ops if seen.job else {}
    if not (seen.job and seen.job.told):
        return ops
    requests = [e["data"]["arguments"] for e in seen.events if e["type"] == "tool.request"]
    return {op: tool for op, tool in ops.items() if any(f'"{op}"' in arguments for arguments in requests)}


def _announced(seen: Seen) -> int:
    """How often it was said that nobody knows what became of a call."""
    told = sum(e["type"] == "tool.response" and e["data"]["error_code"] == "outcome_unknown" for e in seen.events)
    asked = sum(e["type"] == "step.waiting_human" and isinstance(e["data"]["request"], str) for e in seen.events)
    return int(told + asked)


def ended(seen: Seen) -> Iterator[str]:
    """It succeeded, or was canceled by its client, or is an ended run's child."""
    allowed = {RunStatus.SUCCEEDED}
    if seen.canceled:
        allowed.add(RunStatus.CANCELED)
    if seen.run.status not in allowed:
        yield f"is {seen.run.status}: {seen.run.error}"
    if seen.job and seen.job.text and seen.run.status is RunStatus.SUCCEEDED and seen.run.output != seen.job.text:
        yield f"answered {seen.run.output!r}"


def steps_committed_once(seen: Seen) -> Iterator[str]:
    """Each step has one end on the stream, the one that its journal entry says; each wait was resolved once."""
    ends = Counter(e["data"]["key"] for e in seen.events if e["type"] in ("step.completed", "step.failed"))
    for step in seen.steps:
        count = ends.pop(step.key, 0)
        settled = sum(e["type"] == "step.completed" and e["data"].get("repeat", False) for e in _of(seen, step.key))
        wanted = {settled + (step.finished and step.status is not StepStatus.CANCELED)}
        if step.status is StepStatus.CANCELED:
            wanted.add(settled + 1)  # a child that ended with the run
        if step.key in seen.given:
            wanted.add(0)
        if count not in wanted:
            yield f"step {step.key} ({step.status}) ended {count} times"
        if not step.finished and seen.run.status is RunStatus.SUCCEEDED:
            yield f"step {step.key} is {step.status} though the run has succeeded"
    if ends:
        yield f"steps ended that the journal does not know: {dict(ends)}"


def _of(seen: Seen, step_key: str) -> Iterator[Event]:
    return (event for event in seen.events if event["data"].get("key") == step_key)


def epochs_rise(seen: Seen) -> Iterator[str]:
    attempts = [event["attempt"] for event in seen.events]
    # What comes from outside between two attempts bears the last one's number.
    if any(later < earlier for earlier, later in itertools.pairwise(attempts)):
        yield f"attempts fall: {attempts}"
    claims = [event["attempt"] for event in seen.events if event["type"] in ("run.started", "run.resumed")]
    if claims != list(range(1, len(claims) + 1)):
        yield f"claims are not one after another: {claims}"
    if seen.run.epoch != len(claims):
        yield f"epoch {seen.run.epoch} after {len(claims)} claims"


def no_timer_early(seen: Seen) -> Iterator[str]:
    for step in seen.steps:
        if step.wait is None or step.wait.kind is not WaitKind.TIMER or not step.finished:
            continue
        ends = [e["id"] for e in _of(seen, step.key) if e["type"] == "step.completed"]
        if ends and step.wait.until and stream_position(ends[0])[0] < step.wait.until:
            yield f"timer {step.key} ended at {ends[0]}, before {step.wait.until}"


def one_end(seen: Seen) -> Iterator[str]:
    """The last event, and no other, is the run's end."""
    ends = [e["type"] for e in seen.events if e["type"] in ("run.completed", "run.failed", "run.canceled")]
    if len(ends) != 1 or seen.events[-1]["type"] not in ends or seen.run.last_event != seen.events[-1]["id"]:
        yield f"ends with {seen.events[-1]['type']}, and has the ends {ends}"


def text_is_the_journals(seen: Seen) -> Iterator[str]:
    """A model step's deltas, after its last request, are its recorded answer. Those of a step that the run began with
    are the other run's.
    """
    for step in seen.steps:
        if step.kind != "llm" or step.status is not StepStatus.SUCCEEDED:
            continue
        own = [event for event in seen.events if event["step_id"] == f"{seen.run.id}.{step.number}"]
        if not own and step.key in seen.given:
            continue
        last = max((i for i, event in enumerate(own) if event["type"] == "agent.request"), default=0)
        text = "".join(event["data"]["text"] for event in own[last:] if event["type"] == "agent.delta")
        if text != step.result["content"]:
            yield f"step {step.key} streamed {len(text)} characters of {len(step.result['content'])}"


CHECKS = (ended, steps_committed_once, epochs_rise, no_timer_early, one_end, text_is_the_journals)
