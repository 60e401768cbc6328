"""Exa: https://docs.exa.ai/reference/search"""

from datetime import UTC, datetime, timedelta
from typing import Any

from shared.net.guard import Guard
from workflow.web.search.base import Hit, Query, ask, hits_of

DAYS = {"day": 1, "week": 7, "month": 31, "year": 366}
SNIPPET_CHARS = 600


class Exa:
    name = "exa"

    def __init__(self, guard: Guard, key: str, base_url: str = "https://api.exa.ai", *, seconds: float = 8) -> None:
        self._guard = guard
        self._headers = {"x-api-key": key}
        self._url = f"{base_url}/search"
        self._seconds = seconds

    async def search(self, query: Query) -> list[Hit]:
        asked: dict[str, Any] = {
            "query": query.text,
            "numResults": query.count,
            "contents": {"text": {"maxCharacters": SNIPPET_CHARS}},
        }
        if query.freshness:
            since = datetime.now(UTC) - timedelta(days=DAYS[query.freshness])
            asked["startPublishedDate"] = since.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        if query.allowed:
            asked["includeDomains"] = list(query.allowed)
        if query.blocked:
            asked["excludeDomains"] = list(query.blocked)
        answer = await ask(self._guard, "POST", self._url, seconds=self._seconds, headers=self._headers, json=asked)
        return hits_of(answer.get("results"), "text", "publishedDate")
