"""Searches the web."""

from collections.abc import Callable, Sequence
from datetime import date
from typing import ClassVar

from pydantic import Field

from shared.types import JSON
from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult
from workflow.tool.untrusted import cleaned, fenced
from workflow.web.search.base import Freshness, Hit, Query
from workflow.web.search.chain import Outcome

SNIPPET_CHARS = 600
TITLE_CHARS = 200
DOMAINS = 20


class WebSearchArgs(Args):
    query: str = Field(max_length=400, description="What to look for.")
    max_results: int = Field(8, ge=1, le=20, description="How many results at most (default 8).")
    freshness: Freshness | None = Field(None, description="Only what is from the last day, week, month or year.")
    allowed_domains: list[str] = Field(
        default_factory=list, max_length=DOMAINS, description="Only results of these domains, such as python.org"
    )
    blocked_domains: list[str] = Field(
        default_factory=list, max_length=DOMAINS, description="No results of these domains."
    )


class WebSearchTool(Tool[WebSearchArgs]):
    name: ClassVar[str] = "web_search"
    effect: ClassVar[Effect] = Effect.REPEATABLE
    Args = WebSearchArgs

    def __init__(self, today: Callable[[], date] = date.today) -> None:
        self._today = today

    @property
    def description(self) -> str:
        """It says which month it is, because models search for the year that they were made in."""
        return f"{self.described} It is now {self._today():%B %Y}."

    async def run(self, args: WebSearchArgs, ctx: ToolContext) -> ToolResult:
        if not args.query.strip():
            return ToolResult.error("invalid_arguments", "query is blank. Call it again with what to look for.")
        query = Query(
            args.query.strip(),
            args.max_results,
            args.freshness,
            _domains(args.allowed_domains),
            _domains(args.blocked_domains),
        )
        outcome = await ctx.web.search.search(query)
        data = _data(query, outcome)
        if not outcome.hits:
            return _none(query, outcome, data)
        source = f"web search by {outcome.provider}"
        content = fenced("\n\n".join(_entry(n, hit) for n, hit in enumerate(outcome.hits, 1)), source)
        return ToolResult(True, content, data, events=[("search", data)])


def _domains(names: Sequence[str]) -> tuple[str, ...]:
    """As models write them: with https://, www. or a path, too."""
    hosts = (name.strip().lower().rpartition("://")[2].partition("/")[0].removeprefix("www.") for name in names)
    return tuple(host for host in hosts if host)


def _data(query: Query, outcome: Outcome) -> JSON:
    return {
        "query": query.text,
        "provider": outcome.provider,
        "results": [{"title": cleaned(hit.title), "url": hit.url, "published": hit.published} for hit in outcome.hits],
        "failed": {name: cleaned(str(failure)) for name, failure in outcome.failed.items()},
    }


def _entry(number: int, hit: Hit) -> str:
    lines = [f"{number}. {_one_line(hit.title, TITLE_CHARS)}", f"   {_one_line(hit.url, 2_000)}"]
    if hit.published:
        lines.append(f"   published: {_one_line(hit.published, 40)}")
    if hit.snippet:
        lines.append(f"   {_one_line(hit.snippet, SNIPPET_CHARS)}")
    return "\n".join(lines)


def _one_line(text: str, limit: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}…"


def _none(query: Query, outcome: Outcome, data: JSON) -> ToolResult:
    """Nothing found is an answer; a failed search is none."""
    failures = "; ".join(f"{name}: {failure}" for name, failure in data["failed"].items())
    if outcome.empty:
        asked = f"No results for {query.text!r} (asked: {', '.join(outcome.empty)})."
        also = f" But {failures}." if failures else ""
        return ToolResult(True, f"{asked}{also} Try other or fewer words, or fewer limits.", data)
    if not failures:
        return ToolResult.error("not_configured", "No search provider is configured: tell the user.", data)
    limited = all(failure.rate_limited for failure in outcome.failed.values())
    return ToolResult.error(
        "rate_limited" if limited else "search_failed",
        f"The search failed, so nothing is known about what there is to find. {failures}. "
        "Try again later, or go on without it and say so.",
        data,
    )
