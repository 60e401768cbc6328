"""The client: threads, runs, and the stream of what happens in them.

with Client("http://127.0.0.1:8000", key) as trunkline:
    thread = trunkline.threads.create()
    run = trunkline.threads.execute(thread.id, "Write fizzbuzz.py and run it")
    for event in trunkline.runs.events(run.id):
        print(event.type, event.data)
"""

import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

import httpx

from trunkline.errors import APIError, ConnectionLostError, shown
from trunkline.models import JSON, Run, Thread
from trunkline.stream import EventStream, retry_after

PAGE_ITEMS = 100
KEEP_ALIVE_SECONDS = 30.0
"""How often the server lets a silent stream be heard. Twice that without a byte: the connection is dead."""


class Client:
    """Talks to one Trunkline server. Not safe for use by several threads at once; close it, or use it as a context.

    Requests that change something carry an Idempotency-Key, so they are repeated safely (`tries` times in all) where
    the server could not be reached or asked to come back later. Methods raise APIError and ConnectionLostError.
    """

    def __init__(self, url: str, key: str | None = None, *, timeout: float = 30.0, tries: int = 3) -> None:
        headers = {"user-agent": "trunkline-python"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        self._tries = tries
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        self.threads = Threads(self)
        self.runs = Runs(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        return self._send("GET", path, params={name: value for name, value in params.items() if value is not None})

    def items(self, path: str) -> Iterator[JSON]:
        """A list's items, fetched page by page as they are taken."""
        cursor: str | None = None
        while True:
            page = self.get(path, limit=PAGE_ITEMS, cursor=cursor)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def post(self, path: str, body: JSON, *, idempotency_key: str | None = None) -> Any:
        headers = {"idempotency-key": idempotency_key or str(uuid.uuid4())}
        return self._send("POST", path, json=body, headers=headers)

    def events(
        self,
        path: str,
        run_id: str | None,
        *,
        last_id: str | None,
        patience_seconds: float | None,
        on_drop: Callable[[str], None],
    ) -> EventStream:
        params = {"run_id": run_id} if run_id and "/runs/" not in path else {}

        def connect(after: str | None) -> AbstractContextManager[httpx.Response]:
            headers = {"accept": "text/event-stream", **({"last-event-id": after} if after else {})}
            timeout = httpx.Timeout(self._http.timeout.connect, read=2 * KEEP_ALIVE_SECONDS)
            return self._http.stream("GET", path, params=params, headers=headers, timeout=timeout)

        return EventStream(connect, run_id=run_id, last_id=last_id, patience_seconds=patience_seconds, on_drop=on_drop)

    def _send(self, method: str, path: str, **request: Any) -> Any:
        for attempt in range(1, self._tries + 1):
            pause = 0.3 * 2**attempt * random.uniform(0.5, 1)  # noqa: S311 - jitter, not a secret
            try:
                response = self._http.request(method, path, **request)
            except httpx.TransportError as error:
                if attempt == self._tries:
                    address = shown(self._http.base_url)
                    raise ConnectionLostError(f"{address} cannot be reached ({error}).") from error
            else:
                if response.is_success:
                    return response.json()
                if attempt == self._tries or response.status_code not in (429, 502, 503, 504):
                    raise APIError.of(response)
                pause = max(pause, min(retry_after(response), 30))
            time.sleep(pause)
        raise AssertionError("unreachable: the last try returns or raises")


class Threads:
    """Conversations, each with its sandbox and its event stream."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, *, metadata: JSON | None = None, context: JSON | None = None) -> Thread:
        body = {"metadata": metadata, "context": context}
        return Thread.parse(self._client.post("/api/agent/initiate", _given(body)))

    def get(self, thread_id: str) -> Thread:
        return Thread.parse(self._client.get(f"/api/agent/{thread_id}"))

    def list(self) -> Iterator[Thread]:
        """All of them, newest first."""
        return (Thread.parse(item) for item in self._client.items("/api/agent"))

    def execute(
        self,
        thread_id: str,
        task: str,
        *,
        parameters: JSON | None = None,
        context_data: Sequence[JSON] | None = None,
        on_busy: str | None = None,
        idempotency_key: str | None = None,
    ) -> Run:
        """Starts a run, or queues it behind the thread's current one. Returns at once."""
        body = _given({"parameters": parameters, "context_data": context_data, "on_busy": on_busy})
        path = f"/api/agent/{thread_id}/execute"
        return Run.parse(self._client.post(path, {"task": task, **body}, idempotency_key=idempotency_key))

    def runs(self, thread_id: str) -> Iterator[Run]:
        """Its runs, oldest first."""
        return (Run.parse(item) for item in self._client.items(f"/api/agent/{thread_id}/runs"))

    def messages(self, thread_id: str) -> Iterator[JSON]:
        """The conversation as the model sees it, oldest first."""
        return self._client.items(f"/api/agent/{thread_id}/messages")

    def events(
        self,
        thread_id: str,
        *,
        run_id: str | None = None,
        last_id: str | None = None,
        patience_seconds: float | None = None,
        on_drop: Callable[[str], None] = lambda _: None,
    ) -> EventStream:
        """What happens in the thread, from its start or after `last_id`; with `run_id`, until that run has ended."""
        return self._client.events(
            f"/api/agent/{thread_id}/stream",
            run_id,
            last_id=last_id,
            patience_seconds=patience_seconds,
            on_drop=on_drop,
        )


class Runs:
    """Single executions of a task in a thread."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def get(self, run_id: str) -> Run:
        return Run.parse(self._client.get(f"/api/runs/{run_id}"))

    def cancel(self, run_id: str) -> Run:
        """Asks for the run's end. It is canceled only when its stream says so."""
        return Run.parse(self._client.post(f"/api/runs/{run_id}/cancel", {}))

    def events(
        self,
        run_id: str,
        *,
        last_id: str | None = None,
        patience_seconds: float | None = None,
        on_drop: Callable[[str], None] = lambda _: None,
    ) -> EventStream:
        """The run's events from its start, or after `last_id`, until it has ended."""
        return self._client.events(
            f"/api/runs/{run_id}/events", run_id, last_id=last_id, patience_seconds=patience_seconds, on_drop=on_drop
        )


def _given(body: JSON) -> JSON:
    return {name: value for name, value in body.items() if value is not None}
