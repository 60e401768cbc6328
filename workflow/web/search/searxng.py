"""SearXNG, an own server: https://docs.searxng.org/dev/search_api.html. Its settings.yml must allow the format json."""

from shared.net.guard import Guard
from workflow.web.search.base import Hit, Query, SearchFailed, ask, hits_of

TIME_RANGES = {"day": "day", "week": "month", "month": "month", "year": "year"}  # it has no week


class SearXNG:
    name = "searxng"

    def __init__(self, guard: Guard, base_url: str, *, seconds: float = 8) -> None:
        self._guard = guard
        self._url = f"{base_url}/search"
        self._seconds = seconds

    async def search(self, query: Query) -> list[Hit]:
        asked = {"q": query.with_operators(), "format": "json"}
        if query.freshness:
            asked["time_range"] = TIME_RANGES[query.freshness]
        answer = await ask(self._guard, "GET", self._url, seconds=self._seconds, params=asked)
        hits = hits_of(answer.get("results"), "content", "publishedDate")
        if silent := not hits and answer.get("unresponsive_engines"):
            raise SearchFailed(f"none of its engines found anything, and some failed: {str(silent)[:200]}")
        return hits
