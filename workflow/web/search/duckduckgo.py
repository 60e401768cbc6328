"""Search pages of public engines, read by the package ddgs: no key, and no promise either.

An engine that refuses us looks like one that found nothing: ddgs does not tell the two apart.
"""

import asyncio
from typing import Any

from ddgs import DDGS
from ddgs.exceptions import DDGSException, RatelimitException, TimeoutException

from workflow.web.search.base import Hit, Query, SearchFailed, hits_of

TIME_LIMITS = {"day": "d", "week": "w", "month": "m", "year": "y"}
ENGINE_SECONDS = 5
NOTHING = "No results found."


class DuckDuckGo:
    name = "ddgs"

    def __init__(self, *, proxy: str | None = None) -> None:
        self._proxy = proxy

    async def search(self, query: Query) -> list[Hit]:
        try:
            return hits_of(await asyncio.to_thread(self._ask, query), "body", "date")
        except RatelimitException as error:
            raise SearchFailed("it is rate limited", rate_limited=True) from error
        except TimeoutException as error:
            raise SearchFailed("it did not answer in time") from error
        except DDGSException as error:
            if str(error) == NOTHING:
                return []
            raise SearchFailed(f"its engines could not be read: {str(error)[:200]}") from error

    def _ask(self, query: Query) -> list[dict[str, Any]]:
        engines = DDGS(proxy=self._proxy, timeout=ENGINE_SECONDS)
        limit = TIME_LIMITS[query.freshness] if query.freshness else None
        found = engines.text(query.with_operators(), timelimit=limit, max_results=query.count)
        return [{**item, "url": item.get("href")} for item in found]
