# Made by scripts/client_sync.py from trunkline/aio: change that.
"""Threads, their runs, conversations, files and ports."""

from collections.abc import Callable, Sequence
from typing import Any

from trunkline.following import PATIENCE_SECONDS
from trunkline.models import JSON, Event, Message, MessageAccepted, PortLink, Run, RunList, Thread
from trunkline.requests import at, given, if_match
from trunkline.sync.files import Files
from trunkline.sync.http import Http, Pages
from trunkline.sync.resource import Resource
from trunkline.sync.runs import Runs
from trunkline.sync.stream import EventStream, ignore


class Threads(Resource):
    """Conversations, each with its sandbox and its event stream."""

    def __init__(self, http: Http, runs: Runs) -> None:
        super().__init__(http)
        self._runs = runs
        self.files = Files(http)

    def initiate(
        self,
        *,
        metadata: JSON | None = None,
        context: JSON | None = None,
        agent_id: str | None = None,
        project_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Thread:
        """A new thread. `context`: what the agent should know in every run of it."""
        body = given(metadata=metadata, context=context, agent_id=agent_id, project_id=project_id)
        return self._http.post(Thread, at("agent", "initiate"), body, key=idempotency_key)

    def get(self, thread_id: str) -> Thread:
        return self._http.get(Thread, at("agent", thread_id))

    def list(self, **filters: Any) -> Pages[Thread]:
        """All of them, newest first."""
        return self._http.pages(Thread, at("agent"), given(**filters))

    def update(self, thread_id: str, *, version: int | None = None, **fields: Any) -> Thread:
        """Only the fields given change: `name`, `metadata`, `status`. Conflict where it has another version by now."""
        return self._http.patch(Thread, at("agent", thread_id), fields, if_match(version))

    def archive(self, thread_id: str) -> Thread:
        return self.update(thread_id, status="archived")

    def delete(self, thread_id: str, *, version: int | None = None) -> None:
        self._http.delete(at("agent", thread_id), if_match(version))

    def fork(self, thread_id: str, *, step_id: str | None = None, idempotency_key: str | None = None) -> Thread:
        """A new thread with this one's conversation, up to a step where one is named, and its files."""
        return self._http.post(Thread, at("agent", thread_id, "fork"), given(step_id=step_id), key=idempotency_key)

    def execute(
        self,
        thread_id: str,
        task: str,
        *,
        parameters: JSON | None = None,
        context_data: Sequence[JSON] | None = None,
        user_uuid: str | None = None,
        on_busy: str | None = None,
        idempotency_key: str | None = None,
    ) -> Run:
        """Starts a run. `on_busy`, where another one is under way: enqueue (default), reject, interrupt, rollback."""
        options = given(parameters=parameters, context_data=context_data, user_uuid=user_uuid, on_busy=on_busy)
        body = {"task": task, **options}
        return self._http.post(Run, at("agent", thread_id, "execute"), body, key=idempotency_key)

    def execute_and_wait(
        self,
        thread_id: str,
        task: str,
        *,
        on_event: Callable[[Event], None] | None = None,
        patience_seconds: float | None = PATIENCE_SECONDS,
        **options: Any,
    ) -> Run:
        """Executes the task (`options` as for `execute`) and gives the run once it has ended, however it has.

        `on_event` is handed what happens. For as long as the run waits for a human, this does too.
        """
        run = self.execute(thread_id, task, **options)
        return self._runs.wait(run.id, on_event=on_event, patience_seconds=patience_seconds)

    def cancel(self, thread_id: str) -> Sequence[Run]:
        """Asks for the end of what is under way; gives those runs as they now are."""
        return (self._http.post(RunList, at("agent", thread_id, "cancel"))).runs

    def message(
        self, thread_id: str, content: str, *, run_id: str | None = None, idempotency_key: str | None = None
    ) -> MessageAccepted:
        """Tells a running agent something, which it reads at the end of its turn. Conflict where none is under way."""
        body = {"content": content, **given(run_id=run_id)}
        return self._http.post(MessageAccepted, at("agent", thread_id, "message"), body, key=idempotency_key)

    def messages(self, thread_id: str) -> Pages[Message]:
        """The conversation as the model sees it, oldest first."""
        return self._http.pages(Message, at("agent", thread_id, "messages"))

    def runs(self, thread_id: str) -> Pages[Run]:
        """Its runs, oldest first."""
        return self._http.pages(Run, at("agent", thread_id, "runs"))

    def stream(
        self,
        thread_id: str,
        *,
        run_id: str | None = None,
        last_id: str | None = None,
        patience_seconds: float | None = PATIENCE_SECONDS,
        on_drop: Callable[[str], None] = ignore,
    ) -> EventStream:
        """What happens in the thread, from its start or after `last_id`; with `run_id`, until that run has ended."""
        return EventStream(
            self._http,
            at("agent", thread_id, "stream"),
            given(run_id=run_id),
            run_id=run_id,
            last_id=last_id,
            patience_seconds=patience_seconds,
            on_drop=on_drop,
        )

    def link(self, thread_id: str, port: int, *, seconds: int = 3600, public: bool = False) -> PortLink:
        """A link to what the sandbox serves on a port, good for so long. Whoever has it can open it."""
        body = {"seconds": seconds, "public": public}
        return self._http.post(PortLink, at("agent", thread_id, "ports", port, "links"), body)

    def end_links(self, thread_id: str, port: int) -> None:
        """All links to a port, those that agents have given too."""
        self._http.delete(at("agent", thread_id, "ports", port, "links"))
