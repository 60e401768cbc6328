"""Asks one provider after the other, until one finds something or time is up."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import httpx

from shared.config import WebSettings
from shared.net.guard import Guard
from workflow.web.search.base import Hit, Query, SearchFailed, SearchProvider
from workflow.web.search.brave import Brave
from workflow.web.search.duckduckgo import DuckDuckGo
from workflow.web.search.exa import Exa
from workflow.web.search.searxng import SearXNG
from workflow.web.search.tavily import Tavily

EACH_SECONDS = 8.0
TOTAL_SECONDS = 15.0


@dataclass(slots=True)
class Outcome:
    """`provider` found the hits. `empty` found nothing; `failed` says of the others, by name, what went wrong."""

    hits: list[Hit] = field(default_factory=list)
    provider: str | None = None
    empty: list[str] = field(default_factory=list)
    failed: dict[str, SearchFailed] = field(default_factory=dict)


class SearchChain:
    """`providers` in the order in which they are asked."""

    def __init__(
        self,
        providers: Sequence[SearchProvider],
        *,
        each_seconds: float = EACH_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        self.providers = providers
        self._each_seconds = each_seconds
        self._total_seconds = total_seconds

    async def search(self, query: Query) -> Outcome:
        """Never raises for a provider's failure."""
        outcome = Outcome()
        clock = asyncio.get_running_loop().time
        end = clock() + self._total_seconds
        for provider in self.providers:
            left = end - clock()
            if left <= 0:
                outcome.failed[provider.name] = SearchFailed("no time was left to ask it")
                continue
            try:
                async with asyncio.timeout(min(self._each_seconds, left)):
                    hits = _wanted(await provider.search(query), query)
            except TimeoutError:
                outcome.failed[provider.name] = SearchFailed("it did not answer in time")
            except SearchFailed as failed:
                outcome.failed[provider.name] = failed
            else:
                if hits:
                    outcome.hits, outcome.provider = hits, provider.name
                    return outcome
                outcome.empty.append(provider.name)
        return outcome


def configured_providers(settings: WebSettings, guard: Guard) -> list[SearchProvider]:
    """Those of `search_providers` that have what they need; where none is named, all that have, then ddgs."""
    ready: dict[str, SearchProvider] = {}
    if settings.tavily_api_key:
        ready["tavily"] = Tavily(guard, settings.tavily_api_key.get_secret_value())
    if settings.exa_api_key:
        ready["exa"] = Exa(guard, settings.exa_api_key.get_secret_value())
    if settings.brave_api_key:
        ready["brave"] = Brave(guard, settings.brave_api_key.get_secret_value())
    if settings.searxng_url:
        ready["searxng"] = SearXNG(guard, settings.searxng_url)
    ready["ddgs"] = DuckDuckGo()
    return [ready[name] for name in settings.search_providers or ready if name in ready]


def _wanted(hits: list[Hit], query: Query) -> list[Hit]:
    """Each address once, and only of the domains asked for: not every provider knows how to filter."""
    wanted: dict[str, Hit] = {}
    for hit in hits:
        host = _host(hit.url)
        if host and not _within(host, query.blocked) and (not query.allowed or _within(host, query.allowed)):
            wanted.setdefault(hit.url, replace(hit, title=hit.title or hit.url))
    return list(wanted.values())[: query.count]


def _host(url: str) -> str | None:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        return None
    return parts.host if parts.scheme in ("http", "https") else None


def _within(host: str, domains: Sequence[str]) -> bool:
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)
