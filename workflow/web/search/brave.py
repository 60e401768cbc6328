"""Brave: https://api-dashboard.search.brave.com/app/documentation/web-search/get-started"""

from shared.net.guard import Guard
from workflow.web.search.base import Hit, Query, SearchFailed, ask, hits_of

FRESHNESS = {"day": "pd", "week": "pw", "month": "pm", "year": "py"}


class Brave:
    name = "brave"

    def __init__(
        self, guard: Guard, key: str, base_url: str = "https://api.search.brave.com", *, seconds: float = 8
    ) -> None:
        self._guard = guard
        self._headers = {"X-Subscription-Token": key, "Accept": "application/json"}
        self._url = f"{base_url}/res/v1/web/search"
        self._seconds = seconds

    async def search(self, query: Query) -> list[Hit]:
        asked = {"q": query.with_operators(), "count": str(query.count), "text_decorations": "false"}
        if query.freshness:
            asked["freshness"] = FRESHNESS[query.freshness]
        answer = await ask(self._guard, "GET", self._url, seconds=self._seconds, headers=self._headers, params=asked)
        web = answer.get("web", {"results": []})  # Brave leaves `web` out where nothing is found
        if not isinstance(web, dict):
            raise SearchFailed("its answer is not the JSON that was expected")
        return hits_of(web.get("results"), "description", "page_age")
