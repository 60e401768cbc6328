"""What a search provider is: asked one question, it gives hits, or says why it could not."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import httpx
import orjson

from shared.net.client import BodyRefused, guarded_client, read_capped
from shared.net.guard import Guard, Refused
from shared.secrets import mask_secrets
from shared.types import JSON

Freshness = Literal["day", "week", "month", "year"]

ANSWER_BYTES = 4 * 1024**2
REASON_CHARS = 200
RATE_LIMITED = (429, 432, 433)  # the last two are Tavily's, for a plan's or an account's limit


@dataclass(frozen=True, slots=True)
class Query:
    """`freshness`: how old a hit may be. `allowed`: only these domains, where there are any; their sub-domains too."""

    text: str
    count: int = 8
    freshness: Freshness | None = None
    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()

    def with_operators(self) -> str:
        """With its domains in the words that search engines understand."""
        sites = " OR ".join(f"site:{domain}" for domain in self.allowed)
        words = [self.text, f"({sites})" if len(self.allowed) > 1 else sites]
        return " ".join([*filter(None, words), *(f"-site:{domain}" for domain in self.blocked)])


@dataclass(frozen=True, slots=True)
class Hit:
    title: str
    url: str
    snippet: str
    published: str | None = None


class SearchFailed(Exception):
    """The text says why, without the provider's name."""

    def __init__(self, detail: str, *, rate_limited: bool = False) -> None:
        super().__init__(detail)
        self.rate_limited = rate_limited


class SearchProvider(Protocol):
    @property
    def name(self) -> str: ...

    async def search(self, query: Query) -> list[Hit]:
        """No hits means that there are none. Raises SearchFailed. Whoever asks limits the time."""
        ...


async def ask(guard: Guard, method: str, url: str, *, seconds: float, **request: Any) -> JSON:
    """A provider's JSON answer. `request` as httpx takes it. Raises SearchFailed."""
    try:
        async with guarded_client(guard, seconds=seconds) as client, client.stream(method, url, **request) as response:
            body = await read_capped(response, ANSWER_BYTES)
    except Refused as refused:
        raise SearchFailed(f"its address is refused: {refused}") from refused
    except BodyRefused as refused:
        raise SearchFailed(f"its answer was not read: {refused}") from refused
    except httpx.TimeoutException as error:
        raise SearchFailed("it did not answer in time") from error
    except httpx.HTTPError as error:
        raise SearchFailed(f"it could not be reached: {error or type(error).__name__}") from error
    if not response.is_success:
        raise _failure(response.status_code, body)
    answer = _parsed(body)
    if not isinstance(answer, dict):
        raise SearchFailed("its answer is not the JSON that was expected")
    return answer


def _failure(status: int, body: bytes) -> SearchFailed:
    if status in RATE_LIMITED:
        return SearchFailed(f"it is rate limited ({status})", rate_limited=True)
    reason = _reason(_parsed(body))
    if status in (401, 403):
        return SearchFailed(f"it refuses the key ({status}{reason})")
    return SearchFailed(f"it answered {status}{reason}")


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError:
        return None


def _reason(answer: Any) -> str:
    """Where providers say why: `detail.error` (Tavily), `error` (Exa), `error.detail` (Brave), `message`."""
    for key in ("detail", "error", "message"):
        if isinstance(answer, dict) and key in answer:
            return _reason(answer[key])
    return f": {mask_secrets(answer[:REASON_CHARS])}" if isinstance(answer, str) and answer else ""


def hits_of(found: Any, snippet: str, published: str) -> list[Hit]:
    """From a list of objects with `title` and `url`, and the names of the other two. Raises SearchFailed."""
    if not isinstance(found, list):
        raise SearchFailed("its answer is not the JSON that was expected")
    return [
        Hit(_text(item, "title"), _text(item, "url"), _text(item, snippet), _text(item, published) or None)
        for item in found
        if isinstance(item, dict)
    ]


def _text(item: JSON, key: str) -> str:
    value = item.get(key)
    return value if isinstance(value, str) else ""
