# Made by scripts/client_sync.py from trunkline/aio: change that.
"""Requests, with their retries, and pages of lists."""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from time import sleep
from typing import Any, Generic, Self, TypeVar

import httpx

from trunkline.errors import unexpected
from trunkline.models import JSON, Model
from trunkline.requests import new_key
from trunkline.retries import Attempts, Retry, unreachable
from trunkline.transfer import chunks_of

PAGE_ITEMS = 100

M = TypeVar("M", bound=Model)


class Http:
    """Sends what resources ask for. Every method raises APIError and ConnectionLost."""

    def __init__(self, client: httpx.Client, retry: Retry, stream_seconds: float) -> None:
        self._client = client
        self._retry = retry
        self._stream_timeout = httpx.Timeout(client.timeout.connect, read=stream_seconds)

    def get(self, model: type[M], path: str, params: JSON | None = None) -> M:
        return model.parse(_body(self.send("GET", path, params=params)))

    def post(
        self, model: type[M], path: str, body: JSON | None = None, *, params: JSON | None = None, key: str | None = None
    ) -> M:
        headers = {"idempotency-key": key or new_key()}
        return model.parse(_body(self.send("POST", path, params=params, json=body or {}, headers=headers)))

    def post_any(self, path: str, body: JSON) -> JSON:
        headers = {"idempotency-key": new_key()}
        return dict(_body(self.send("POST", path, json=body, headers=headers)))

    def patch(self, model: type[M], path: str, body: JSON, headers: Mapping[str, str]) -> M:
        """Sent again only where the server has not seen it: else its own change could pass for another's."""
        return model.parse(_body(self.send("PATCH", path, json=body, headers=headers, repeatable=False)))

    def put(self, model: type[M], path: str, **request: Any) -> M:
        return model.parse(_body(self.send("PUT", path, **request)))

    def delete(self, path: str, headers: Mapping[str, str] | None = None) -> None:
        self.send("DELETE", path, headers=headers)

    def once(self, path: str) -> Any:
        """A body of whatever status, of one try. Raises ConnectionLost, UnexpectedAnswer."""
        try:
            return _body(self._client.get(path))
        except httpx.RequestError as error:
            raise unreachable(error) from error

    def send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | Path | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
        **request: Any,
    ) -> httpx.Response:
        """`content`: a file is read anew for each try."""
        attempts = Attempts(self._retry, method, repeatable=repeatable)
        if isinstance(content, Path):  # so that one that is too large is refused before it is sent
            headers = {**(headers or {}), "content-length": str(content.stat().st_size)}
        while True:
            body = chunks_of(content) if isinstance(content, Path) else content
            try:
                response = self._client.request(method, path, content=body, headers=headers, **request)
            except httpx.RequestError as error:
                pause = attempts.cut(error)
            else:
                if attempts.has_done(response):
                    return response
                pause = attempts.refused(response)
            sleep(pause)

    def stream(self, path: str, *, params: JSON, headers: Mapping[str, str]) -> AbstractContextManager[httpx.Response]:
        """One try, for whoever can resume."""
        return self._client.stream("GET", path, params=params, headers=headers, timeout=self._stream_timeout)

    def download(self, path: str, params: JSON) -> Generator[bytes]:
        """A body in pieces. Retried until its first byte."""
        attempts = Attempts(self._retry, "GET", repeatable=True)
        while True:
            begun = False
            try:
                with self._client.stream("GET", path, params=params) as response:
                    if response.is_success:
                        for piece in response.iter_bytes():
                            begun = True
                            yield piece
                        return
                    response.read()
                    pause = attempts.refused(response)
            except httpx.RequestError as error:
                pause = attempts.cut(error) if not begun else attempts.broke_off(error)
            sleep(pause)

    def pages(self, model: type[M], path: str, params: JSON | None = None) -> "Pages[M]":
        return Pages(self, path, params or {}, model.parse)


class Pages(Iterator[M], Generic[M]):
    """A list's items, fetched page by page as they are taken. To be gone through once."""

    def __init__(self, http: Http, path: str, params: JSON, parse: Callable[[Any], M]) -> None:
        self._http = http
        self._path = path
        self._params = {"limit": PAGE_ITEMS, **params}
        self._parse = parse
        self._items = self._all()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> M:
        return self._items.__next__()

    def _all(self) -> Generator[M]:
        cursor: str | None = None
        while True:
            params = {**self._params, **({"cursor": cursor} if cursor else {})}
            response = self._http.send("GET", self._path, params=params)
            page = _body(response)
            if not isinstance(page, dict) or "items" not in page:
                raise unexpected(response)
            for item in page["items"]:
                yield self._parse(item)
            cursor = page.get("next_cursor")
            if cursor is None:
                return


def _body(response: httpx.Response) -> Any:
    """Raises UnexpectedAnswer."""
    try:
        return response.json()
    except ValueError:
        raise unexpected(response) from None
