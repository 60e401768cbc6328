"""What clients do during a chaos run: start runs, follow them as an EventSource does, publish, approve, cancel.

Every request is repeated with its Idempotency-Key until it is answered, at whichever gateway is there: a run is
accepted once somebody said so.
"""

import asyncio
import itertools
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from tests.chaos.fleet import Fleet
from tests.support.eventsource import ENDS, RECONNECT_SECONDS, Received, connection

ASK_SECONDS = 180
"""How long a request is repeated."""
CLERK_SECONDS = 0.5
KINDS = [
    *["agent"] * 8,
    *["order"] * 6,
    *["canceled agent", "retried agent", "retried order", "told agent", "interrupted agent"],
    *["canceled order", "stuck"],
]
LATER_SECONDS = 5
Later = Callable[[], Awaitable[None]]
LONGEST_PAUSE_SECONDS = 0.8
"""Between two jobs."""
TOOLS = ("look", "charge", "keyed", "blind", "asking")


@dataclass
class Job:
    """A run and what its client saw. `ops`: the tool of each effect it is to have."""

    number: int
    kind: str
    op: str
    ops: dict[str, str] = field(default_factory=dict)
    text: str = ""
    approve: bool | None = None
    thread_id: str = ""
    run_id: str = ""
    canceled: bool = False
    told: bool = False
    events: list[Received] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    task: asyncio.Task[None] | None = None


class Load:
    """`begin` starts job after job, at most `at_once`, until `stop`; what they do is the seed's to say.

    `with_clerk`: somebody answers what waits for people.
    """

    def __init__(self, fleet: Fleet, seed: int, *, at_once: int = 16, with_clerk: bool = True) -> None:
        self.jobs: list[Job] = []
        self.faults: list[str] = []
        self._fleet = fleet
        self._seed = seed
        self._random = random.Random(f"load {seed}")
        self._slots = asyncio.Semaphore(at_once)
        self._urls = itertools.cycle(fleet.gateway_urls)
        self._producer: asyncio.Task[None] | None = None
        self._clerk = asyncio.create_task(self._answer_people() if with_clerk else asyncio.sleep(0))

    def begin(self) -> None:
        self._producer = asyncio.create_task(self._produce())

    async def stop(self) -> None:
        """Starts no more jobs."""
        if self._producer is not None:
            self._producer.cancel()
            await asyncio.gather(self._producer, return_exceptions=True)

    async def finish(self, seconds: float) -> list[Job]:
        """Waits for all jobs. Returns those that are not done by then."""
        tasks = [job.task for job in self.jobs if job.task]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        late = [job for job in self.jobs if job.task and not job.task.done()]
        for job in late:
            assert job.task
            job.task.cancel()
        self._clerk.cancel()
        await asyncio.gather(self._clerk, *tasks, return_exceptions=True)
        return late

    def start(self, kind: str, *, approve: bool | None = None) -> Job:
        """One job of a kind: those of KINDS, or sandbox. `approve`: whether an order asks a human."""
        number = len(self.jobs)
        job = Job(number, kind, f"{self._seed}-{number}", approve=approve)
        choices = random.Random(f"job {self._seed} {number}")
        self.jobs.append(job)
        job.task = asyncio.create_task(self._run(job, choices))
        return job

    async def _produce(self) -> None:
        kinds = [*KINDS, *["sandbox"] * self._fleet.sandbox]
        while True:
            await self._slots.acquire()
            job = self.start(self._random.choice(kinds))
            assert job.task
            job.task.add_done_callback(lambda _: self._slots.release())
            await asyncio.sleep(self._random.uniform(0, LONGEST_PAUSE_SECONDS))

    async def _run(self, job: Job, choices: random.Random) -> None:
        later = await (self._order if "order" in job.kind else self._agent)(job, choices)
        following = asyncio.create_task(self._follow(job))
        try:
            if later is not None:
                await asyncio.sleep(choices.uniform(0, LATER_SECONDS))
                await later()
            await following
        finally:
            following.cancel()
        self._fleet.history.add("job", number=job.number, kind=job.kind, run=job.run_id)
        if "retried" in job.kind and job.events[-1].type == "run.canceled":
            await self._retry(job)

    async def _agent(self, job: Job, choices: random.Random) -> Later | None:
        """Starts an agent's run. Returns what its client does while it goes on."""
        calls, tokens = [], choices.randint(20, 60)
        if job.kind == "sandbox":
            calls.append('[[tool:bash {"command": "echo x >> ran.txt; sleep 0.3; wc -l < ran.txt"} x2]]')
        else:
            tools = ["stuck"] if job.kind == "stuck" else [choices.choice(TOOLS) for _ in range(choices.randint(1, 4))]
            for n, tool in enumerate(tools):
                op = f"{job.op}-{n}"
                job.ops[op] = tool
                calls.append(f'[[tool:{tool} {{"op": "{op}"}}]]')
        task = f"{job.op}: {' '.join(calls)} [[tokens:{tokens}]] [[delay:{choices.choice([2, 15, 30])}]]"
        job.text = "".join(f"t{i:05d} " for i in range(tokens))
        job.thread_id = (await self.post("/api/agent/initiate", {}, f"{job.op}-t"))["thread_id"]
        path = f"/api/agent/{job.thread_id}/execute"
        job.run_id = (await self.post(path, {"task": task}, f"{job.op}-r"))["run_id"]
        later = {"canceled": self._cancel, "retried": self._cancel, "told": self._tell, "interrupted": self._interrupt}
        what = later.get(job.kind.partition(" ")[0])
        return partial(what, job) if what else None

    async def _order(self, job: Job, choices: random.Random) -> Later | None:
        """Starts a durable function's run, as `_agent` does."""
        job.ops = {f"{job.op}:charge": "charge", f"{job.op}:send": "asking"}
        approve = choices.random() < 0.5 if job.approve is None else job.approve
        input = {"op": job.op, "seconds": choices.choice([0.2, 1, 4]), "approve": approve}
        early = choices.random() < 0.5
        if early:
            await self._pay(job)
        body = {"runnable_type": "function", "runnable_id": "order", "input": input}
        accepted = await self.post("/api/runs", body, f"{job.op}-r")
        job.run_id, job.thread_id = accepted["run_id"], accepted["thread_id"]
        if job.kind != "order":
            return partial(self._cancel, job)
        return None if early else partial(self._pay, job)

    async def _cancel(self, job: Job) -> None:
        job.canceled = True
        await self.post(f"/api/runs/{job.run_id}/cancel", {}, f"{job.op}-c")

    async def _retry(self, job: Job) -> None:
        """What was canceled is done after all, by another run, whose are the effects now."""
        if "order" in job.kind:
            await self._pay(job)
        again = self._beside(job, (await self.post(f"/api/runs/{job.run_id}/retry", {}, f"{job.op}-again"))["run_id"])
        again.ops, job.ops = job.ops, {}
        await self._follow(again)

    async def _tell(self, job: Job) -> None:
        """A message for the agent, unless it is done already. What the script answers then is its own affair."""
        try:
            await self.post(f"/api/agent/{job.thread_id}/message", {"content": f"told {job.op}"}, f"{job.op}-told")
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 409:
                raise
        else:
            job.told, job.text = True, ""

    async def _interrupt(self, job: Job) -> None:
        """Another task, now: the one under way is canceled."""
        job.canceled = True
        body = {"task": f"{job.op}: instead [[tokens:5]]", "on_busy": "interrupt"}
        accepted = await self.post(f"/api/agent/{job.thread_id}/execute", body, f"{job.op}-instead")
        instead = self._beside(job, accepted["run_id"])
        instead.text = "".join(f"t{i:05d} " for i in range(5))
        await self._follow(instead)

    def _beside(self, job: Job, run_id: str) -> Job:
        """Another run of the same client, in the same thread."""
        found = Job(len(self.jobs), job.kind, job.op, text=job.text, thread_id=job.thread_id, run_id=run_id)
        self.jobs.append(found)
        return found

    async def _pay(self, job: Job) -> None:
        await self.post("/api/events", {"name": "paid", "key": job.op, "payload": job.op}, f"{job.op}-paid")

    async def post(self, path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
        """The answer, once there is one. Raises httpx.HTTPStatusError for a refusal."""
        async with asyncio.timeout(ASK_SECONDS):
            while True:
                try:
                    answer = await self._fleet.http.post(
                        next(self._urls) + path, json=body, headers={"Idempotency-Key": key}
                    )
                    if answer.status_code < 500 and answer.status_code != 429:
                        answer.raise_for_status()
                        return dict(answer.json())
                    if answer.status_code == 500:
                        self.faults.append(f"POST {path} answered 500: {answer.text[:300]}")
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.3)

    async def _follow(self, job: Job) -> None:
        """Every event with an id, over as many connections and gateways as it takes, until the run's end."""
        while True:
            last_id = job.events[-1].id if job.events else None
            path = f"{next(self._urls)}/api/agent/{job.thread_id}/stream?run_id={job.run_id}"
            try:
                async for event in connection(self._fleet.http, path, last_id):
                    if event.id is not None:
                        job.events.append(event)
                    if event.type == "gap":
                        job.faults.append(f"gap: {event.data}")
                    if event.type in ENDS and event.data.get("run_id") == job.run_id:
                        return
            except httpx.TransportError:
                pass
            except httpx.HTTPStatusError as error:  # for this an EventSource gives up for ever
                job.faults.append(f"stream answered {error.response.status_code}")
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _answer_people(self) -> None:
        """Approves what is to be approved, and finds out in the ledger what became of what nobody knows."""
        while True:
            await asyncio.sleep(CLERK_SECONDS)
            try:
                answer = await self._fleet.http.get(f"{next(self._urls)}/api/approvals?limit=100")
                if answer.is_success:
                    await asyncio.gather(*(self._answer(step) for step in answer.json()["items"]))
            except httpx.TransportError:
                continue

    async def _answer(self, step: dict[str, Any]) -> None:
        base = f"{next(self._urls)}/api/steps/{step['step_id']}"
        if step["wait"]["kind"] == "human":
            await self._fleet.http.post(f"{base}/human-complete", json={"output": {"approved": True}})
            return
        op = self._op_of(step)
        if op is None:  # its client has not seen it yet
            return
        done = self._fleet.ledger.blind(op) > 0
        decision = {"as": "done", "output": "found done"} if done else {"as": "repeat"}
        answer = await self._fleet.http.post(f"{base}/resolve", json=decision)
        if answer.is_success:
            self._fleet.history.add("settled", op=op, decision=decision["as"])

    def _op_of(self, step: dict[str, Any]) -> str | None:
        """What the step of unknown outcome was to do."""
        job = next((job for job in self.jobs if job.run_id == step["run_id"]), None)
        if job is not None and "order" in job.kind:
            return f"{job.op}:send"
        for event in job.events if job else ():
            if event.type == "tool.request" and event.data["step_id"] == step["step_id"]:
                return str(json.loads(event.data["data"]["arguments"])["op"])
        return None
