# Made by scripts/client_sync.py from trunkline/aio: change that.
"""Event streams that go on where they were cut."""

from collections.abc import Callable, Generator, Iterator
from time import sleep
from typing import Self

import httpx

from trunkline.following import Following
from trunkline.models import JSON, Event
from trunkline.sync.http import Http


def ignore(_: str) -> None:
    """For whoever does not want to hear of dropped connections."""


class EventStream(Iterator[Event]):
    """Events in order, each once. It ends with the run's terminal event where it follows a run, else never by itself.

    Raises APIError where the server refuses, ConnectionLost when nothing was heard of it for `patience_seconds` after
    a cut (None: tries for ever). `on_drop` is told why a connection ended before its time. `last_id` is the id of the
    last event given: a later stream may go on after it.
    """

    def __init__(
        self,
        http: Http,
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

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        return self._events.__next__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; the iterator gives no more."""
        self._events.close()

    def _follow(self) -> Generator[Event]:
        state = self._state
        while not state.has_ended():
            reason = "the connection ended"
            try:
                with self._http.stream(self._path, params=self._params, headers=state.headers()) as response:
                    if response.status_code != httpx.codes.OK:
                        response.read()
                    if state.answered(response):
                        for chunk in response.iter_bytes():
                            yield from state.take(chunk)
                            if state.has_ended():
                                return
            except httpx.RequestError as error:
                reason = str(error) or type(error).__name__
            if not state.has_ended():
                sleep(state.dropped(reason))
