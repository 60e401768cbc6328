"""Runs, their steps and what waits for people."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

from trunkline.aio.http import AsyncPages
from trunkline.aio.resource import AsyncResource
from trunkline.aio.stream import AsyncEventStream, ignore
from trunkline.deltas import Delta, Deltas
from trunkline.following import PATIENCE_SECONDS
from trunkline.models import JSON, Event, LogLine, Published, Run, Step
from trunkline.requests import at, given, if_match


class AsyncRuns(AsyncResource):
    """Single executions of an agent or a function."""

    async def create(
        self,
        *,
        input: Any = None,
        runnable_type: str | None = None,
        runnable_id: str | None = None,
        thread_id: str | None = None,
        parameters: JSON | None = None,
        user_uuid: str | None = None,
        on_busy: str | None = None,
        idempotency_key: str | None = None,
    ) -> Run:
        """Runs something, by default an agent (`input`: `{"task": ...}`), by default in a new thread."""
        what = given(input=input, runnable_type=runnable_type, runnable_id=runnable_id, thread_id=thread_id)
        how = given(parameters=parameters, user_uuid=user_uuid, on_busy=on_busy)
        return await self._http.post(Run, at("runs"), {**what, **how}, key=idempotency_key)

    async def get(self, run_id: str) -> Run:
        """With its input and output, however large."""
        return await self._http.get(Run, at("runs", run_id))

    def list(self, **filters: Any) -> AsyncPages[Run]:
        """Newest first; `filters` as of the HTTP API: status, thread_id, agent_id, ..."""
        return self._http.pages(Run, at("runs"), given(**filters))

    async def cancel(self, run_id: str) -> Run:
        """Asks for the run's end. It is canceled only when its stream says so."""
        return await self._http.post(Run, at("runs", run_id, "cancel"))

    async def retry(self, run_id: str, *, parameters: JSON | None = None, idempotency_key: str | None = None) -> Run:
        """A new run that goes on from the finished steps of a failed one. `parameters`: what changes."""
        body = given(parameters=parameters)
        return await self._http.post(Run, at("runs", run_id, "retry"), body, key=idempotency_key)

    async def fork(
        self, run_id: str, *, step_id: str | None = None, input: Any = None, idempotency_key: str | None = None
    ) -> Run:
        """A new run in a new thread, with what this one had before a step."""
        body = given(step_id=step_id, input=input)
        return await self._http.post(Run, at("runs", run_id, "fork"), body, key=idempotency_key)

    async def update(self, run_id: str, *, version: int | None = None, **fields: Any) -> Run:
        """Only the fields given change: `name`, `labels`. Conflict where it has another version by now."""
        return await self._http.patch(Run, at("runs", run_id), fields, if_match(version))

    async def delete(self, run_id: str, *, version: int | None = None) -> None:
        """Only one that has ended."""
        await self._http.delete(at("runs", run_id), if_match(version))

    def steps(self, run_id: str) -> AsyncPages[Step]:
        """In order of their start."""
        return self._http.pages(Step, at("runs", run_id, "steps"))

    def logs(self, run_id: str) -> AsyncPages[LogLine]:
        return self._http.pages(LogLine, at("runs", run_id, "logs"))

    def events(self, run_id: str) -> AsyncPages[Event]:
        """Those that there are by now; `follow` waits for more."""
        return self._http.pages(Event, at("runs", run_id, "events"))

    def follow(
        self,
        run_id: str,
        *,
        last_id: str | None = None,
        patience_seconds: float | None = PATIENCE_SECONDS,
        on_drop: Callable[[str], None] = ignore,
    ) -> AsyncEventStream:
        """The run's events from its start, or after `last_id`, until it has ended."""
        return AsyncEventStream(
            self._http,
            at("runs", run_id, "events"),
            {},
            run_id=run_id,
            last_id=last_id,
            patience_seconds=patience_seconds,
            on_drop=on_drop,
        )

    async def wait(
        self,
        run_id: str,
        *,
        on_event: Callable[[Event], None] | None = None,
        patience_seconds: float | None = PATIENCE_SECONDS,
    ) -> Run:
        """The run once it has ended, however it has (`raise_for_status` tells). `on_event` is handed what happens."""
        async with self.follow(run_id, patience_seconds=patience_seconds) as events:
            async for event in events:
                if on_event is not None:
                    on_event(event)
        return await self.get(run_id)

    async def deltas(self, run_id: str, *, patience_seconds: float | None = PATIENCE_SECONDS) -> AsyncGenerator[Delta]:
        """What the agent says, as it says it. Raises RunFailed at the end of a run that did not succeed."""
        deltas = Deltas()
        async with self.follow(run_id, patience_seconds=patience_seconds) as events:
            async for event in events:
                if delta := deltas.of(event):
                    yield delta
        (await self.get(run_id)).raise_for_status()


class AsyncSteps(AsyncResource):
    """Steps of runs, and answers to those that wait. Conflict where one does not wait for such an answer."""

    async def get(self, step_id: str) -> Step:
        """With its output and its request, however large."""
        return await self._http.get(Step, at("steps", step_id))

    async def human_complete(self, step_id: str, output: Any = None, *, idempotency_key: str | None = None) -> Step:
        """Answers a human step; for approvals: `{"approved": true, "comment": ...}`."""
        path = at("steps", step_id, "human-complete")
        return await self._http.post(Step, path, {"output": output}, key=idempotency_key)

    async def resolve(
        self, step_id: str, decision: str, *, output: Any = None, idempotency_key: str | None = None
    ) -> Step:
        """Settles an unknown outcome: repeat it, take it as done (with `output`), or as failed."""
        body = {"as": decision, **given(output=output)}
        return await self._http.post(Step, at("steps", step_id, "resolve"), body, key=idempotency_key)


class AsyncApprovals(AsyncResource):
    def list(self) -> AsyncPages[Step]:
        """What waits for people, oldest first."""
        return self._http.pages(Step, at("approvals"))


class AsyncEvents(AsyncResource):
    async def publish(
        self,
        name: str,
        payload: Any = None,
        *,
        key: str | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Published:
        """For durable code that waits for it, now or later; for a `key`, or for a run, only where one is given."""
        body = {"name": name, "payload": payload, **given(key=key, run_id=run_id)}
        return await self._http.post(Published, at("events"), body, key=idempotency_key)
