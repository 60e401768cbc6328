"""Event streams that go on where they were cut."""

from asyncio import sleep
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Self

import httpx

from trunkline.aio.http import AsyncHttp
from trunkline.following import Following
from trunkline.models import JSON, Event


def ignore(_: str) -> None:
    """For whoever does not want to hear of dropped connections."""


class AsyncEventStream(AsyncIterator[Event]):
    """Events in order, each once. It ends with the run's terminal event where it follows a run, else never by itself.

    Raises APIError where the server refuses, ConnectionLost when nothing was heard of it for `patience_seconds` after
    a cut (None: tries for ever). `on_drop` is told why a connection ended before its time. `last_id` is the id of the
    last event given: a later stream may go on after it.
    """

    def __init__(
        self,
        http: AsyncHttp,
        path: str,
        params: JSON,
        *,
        run_id: str | None,
        last_id: str | None,
        patience_seconds: float | None,
        on_drop: Callable[[str], None],
    ) -> None:
        self._http = http
        self._path = path
        self._params = params
        self._state = Following(run_id=run_id, last_id=last_id, patience_seconds=patience_seconds, on_drop=on_drop)
        self._events = self._follow()

    @property
    def last_id(self) -> str | None:
        return self._state.last_id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self._events.__anext__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the connection; the iterator gives no more."""
        await self._events.aclose()

    async def _follow(self) -> AsyncGenerator[Event]:
        state = self._state
        while not state.has_ended():
            reason = "the connection ended"
            try:
                async with self._http.stream(self._path, params=self._params, headers=state.headers()) as response:
                    if response.status_code != httpx.codes.OK:
                        await response.aread()
                    if state.answered(response):
                        async for chunk in response.aiter_bytes():
                            for event in state.take(chunk):
                                yield event
                            if state.has_ended():
                                return
            except httpx.RequestError as error:
                reason = str(error) or type(error).__name__
            if not state.has_ended():
                await sleep(state.dropped(reason))
