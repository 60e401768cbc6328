"""Tavily: https://docs.tavily.com/documentation/api-reference/endpoint/search"""

from typing import Any

from shared.net.guard import Guard
from workflow.web.search.base import Hit, Query, ask, hits_of


class Tavily:
    name = "tavily"

    def __init__(self, guard: Guard, key: str, base_url: str = "https://api.tavily.com", *, seconds: float = 8) -> None:
        self._guard = guard
        self._headers = {"Authorization": f"Bearer {key}"}
        self._url = f"{base_url}/search"
        self._seconds = seconds

    async def search(self, query: Query) -> list[Hit]:
        asked: dict[str, Any] = {"query": query.text, "max_results": query.count}
        if query.freshness:
            asked["time_range"] = query.freshness
        if query.allowed:
            asked["include_domains"] = list(query.allowed)
        if query.blocked:
            asked["exclude_domains"] = list(query.blocked)
        answer = await ask(self._guard, "POST", self._url, seconds=self._seconds, headers=self._headers, json=asked)
        return hits_of(answer.get("results"), "content", "published_date")
