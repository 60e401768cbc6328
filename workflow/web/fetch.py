"""Gets one page: over the guard, within limits, following redirects only where they stay with the same host."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus

import httpx

from shared.net.client import BodyRefused, guarded_client, read_capped
from shared.net.guard import Guard, Refused
from workflow.web.page import Unreadable, text_of

REDIRECTS = 5
TOTAL_SECONDS = 20.0
STALL_SECONDS = 10.0
HEADERS = {
    "Accept": "text/markdown, text/html;q=0.9, application/xhtml+xml;q=0.9, text/*;q=0.8, application/json;q=0.8",
    "User-Agent": "Trunkline web_fetch",
}


@dataclass(frozen=True, slots=True)
class Page:
    """`url` is where it was in the end."""

    url: str
    content_type: str
    text: str


@dataclass(frozen=True, slots=True)
class Moved:
    """The page is at another host."""

    url: str


class FetchError(Exception):
    """No page. `code` is for programs; the text says why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


async def fetch(guard: Guard, url: str, *, max_bytes: int, seconds: float = TOTAL_SECONDS) -> Page | Moved:
    """Raises FetchError."""
    try:
        async with asyncio.timeout(seconds), guarded_client(guard, seconds=STALL_SECONDS, headers=HEADERS) as client:
            return await _follow(client, guard, httpx.URL(url), max_bytes)
    except (Refused, httpx.InvalidURL) as refused:
        raise FetchError("refused", f"it is refused: {refused}") from refused
    except (BodyRefused, Unreadable) as error:
        raise FetchError("unreadable", f"its content was not read: {error}") from error
    except (TimeoutError, httpx.TimeoutException) as error:
        raise FetchError("timeout", f"the server did not answer in full within {seconds:g} seconds") from error
    except (httpx.HTTPError, OSError) as error:
        raise FetchError("unreachable", f"the server could not be reached: {error or type(error).__name__}") from error


async def _follow(client: httpx.AsyncClient, guard: Guard, url: httpx.URL, max_bytes: int) -> Page | Moved:
    for _ in range(REDIRECTS + 1):
        async with client.stream("GET", url) as response:
            redirect = response.next_request
            if redirect is None:
                return await _page(response, max_bytes)
        await guard.check(redirect.url)
        if _site(redirect.url) != _site(url):
            return Moved(str(redirect.url))
        url = redirect.url
    raise FetchError("too_many_redirects", f"it redirects more than {REDIRECTS} times")


async def _page(response: httpx.Response, max_bytes: int) -> Page:
    if not response.is_success:
        known = response.status_code in HTTPStatus._value2member_map_
        phrase = HTTPStatus(response.status_code).phrase if known else ""
        raise FetchError(f"http_{response.status_code}", f"the server answered {response.status_code} {phrase}".strip())
    content_type = response.headers.get("Content-Type", "")
    text = await text_of(await read_capped(response, max_bytes), content_type, str(response.url))
    return Page(str(response.url), content_type, text)


def _site(url: httpx.URL) -> str:
    return url.host.removeprefix("www.")
