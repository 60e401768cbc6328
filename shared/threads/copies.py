"""Finished steps of one run, copied for another that is submitted with them."""

import secrets
from collections.abc import Sequence
from dataclasses import replace

from redis.asyncio import Redis

from shared.keys import thread_keys_of
from shared.payloads.payloads import UNNAMED_SECONDS, Payloads
from shared.redis import patiently
from shared.threads.steps import StepRecord
from shared.threads.types import CopiedSteps

STEPS_IN_ONE_WRITE = 200


class Copies:
    """Each copy has a name and blobs of its own, so that of two that are made at once either can be submitted.

    What is submitted within an hour stays, the rest goes. `patience_seconds`: as of the thread store.
    """

    def __init__(self, client: Redis, payloads: Payloads, *, patience_seconds: float | None) -> None:
        self._client = client
        self._payloads = payloads
        self._patience_seconds = patience_seconds

    async def make(self, steps: Sequence[StepRecord], run_id: str) -> CopiedSteps | None:
        """None: there are none, or the run was submitted already. Raises AppError RESULT_LOST, UNAVAILABLE."""
        k = thread_keys_of(run_id)
        submitted = await patiently(lambda: self._client.exists(k.run(run_id)), self._patience_seconds)
        if submitted or not steps:
            return None
        copies = [await self._step_in(k.thread_id, step) for step in steps]
        name = secrets.token_hex(8)
        journal, index = k.copy(name), k.copy(f"{name}:steps")
        for start in range(0, len(copies), STEPS_IN_ONE_WRITE):
            await self._write(journal, index, copies[start : start + STEPS_IN_ONE_WRITE])
        stored = {ref for step in copies for ref in step.refs} - {ref for step in steps for ref in step.refs}
        return CopiedSteps(journal, index, len(copies), [ref.marker for ref in stored])

    async def _step_in(self, thread_id: str, step: StepRecord) -> StepRecord:
        """With what it names in that thread."""
        if step.payload and step.payload.thread_id != thread_id:
            step = replace(step, payload=await self._payloads.copy(step.payload, thread_id))
        if step.input_ref and step.input_ref.thread_id != thread_id:
            step = replace(step, input_ref=await self._payloads.copy(step.input_ref, thread_id))
        wait = step.wait
        if wait and wait.request_ref and wait.request_ref.thread_id != thread_id:
            request_ref = await self._payloads.copy(wait.request_ref, thread_id)
            step = replace(step, wait=replace(wait, request_ref=request_ref))
        return step

    async def _write(self, journal: str, index: str, steps: Sequence[StepRecord]) -> None:
        async def write() -> None:
            pipeline = self._client.pipeline(transaction=True)
            pipeline.hset(journal, mapping={step.key: step.entry() for step in steps})
            pipeline.zadd(index, {step.key: step.number for step in steps})
            for key in (journal, index):
                pipeline.expire(key, UNNAMED_SECONDS)
            await pipeline.execute()

        await patiently(write, self._patience_seconds)
