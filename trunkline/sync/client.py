# Made by scripts/client_sync.py from trunkline/aio: change that.
"""The client: threads, runs, and the stream of what happens in them."""

import os
from typing import Any, Self

import httpx

from trunkline.models import Health
from trunkline.retries import Retry
from trunkline.sync.catalogue import (
    Agents,
    Keys,
    Projects,
    Tasks,
    Teams,
    Tools,
    Workflows,
    Workspaces,
)
from trunkline.sync.http import Http
from trunkline.sync.runs import Approvals, Events, Runs, Steps
from trunkline.sync.threads import Threads

URL = "http://127.0.0.1:8000"
STREAM_SECONDS = 75.0
"""The server lets a silent stream be heard every 30 s: without a byte for so long, a connection is dead."""


class Trunkline:
    """Talks to one Trunkline server. Close it, or use it as a context.

    `url` and `key` are else TRUNKLINE_URL and TRUNKLINE_API_KEY. `workspace`: the id of one of those that the key may
    use. `timeout` in seconds, for connecting and for each silence in an answer; `stream_seconds` for those of streams.
    What creates or executes carries an Idempotency-Key, so that `retry` repeats it safely. Methods raise APIError (by
    the problem's code: NotFound, Conflict, RateLimited, ...) and ConnectionLost, both TrunklineError.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        workspace: str | None = None,
        timeout: float = 30.0,
        stream_seconds: float = STREAM_SECONDS,
        retry: Retry | None = None,
        **httpx_options: Any,
    ) -> None:
        """`httpx_options`: more of httpx's client, such as `verify`, `proxy`, `transport`."""
        headers = {"user-agent": "trunkline-python"}
        if key := key or os.environ.get("TRUNKLINE_API_KEY"):
            headers["authorization"] = f"Bearer {key}"
        if workspace:
            headers["x-workspace-id"] = workspace
        base_url = url or os.environ.get("TRUNKLINE_URL") or URL
        httpx_options.setdefault("limits", httpx.Limits(max_connections=None))  # each open stream holds one
        self._client = httpx.Client(base_url=base_url, headers=headers, timeout=timeout, **httpx_options)
        self._http = http = Http(self._client, retry or Retry(), stream_seconds)
        self.runs = Runs(http)
        self.threads = Threads(http, self.runs)
        self.steps = Steps(http)
        self.approvals = Approvals(http)
        self.events = Events(http)
        self.tools = Tools(http)
        self.agents = Agents(http)
        self.teams = Teams(http)
        self.workflows = Workflows(http)
        self.tasks = Tasks(http)
        self.projects = Projects(http)
        self.workspaces = Workspaces(http)
        self.keys = Keys(http)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def health(self) -> Health:
        """Asked once. Where a part is away, that is no exception: `status` says so."""
        return Health.parse(self._http.once("/health"))

    def close(self) -> None:
        self._client.close()
