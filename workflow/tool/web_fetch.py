"""Reads a page of the web."""

import asyncio
from typing import ClassVar

from pydantic import Field

from workflow.tool.base import Args, Effect, Tool, ToolContext, ToolResult
from workflow.tool.display import count_of, short_lines
from workflow.tool.untrusted import cleaned, fenced, without_comments
from workflow.web.fetch import FetchError, Moved, Page

URL_CHARS = 2_000


class WebFetchArgs(Args):
    url: str = Field(max_length=URL_CHARS, description="The address, with http:// or https://.")
    page: int = Field(1, ge=1, description="Which part of a long page, from 1 (default 1).")


class WebFetchTool(Tool[WebFetchArgs]):
    name: ClassVar[str] = "web_fetch"
    effect: ClassVar[Effect] = Effect.REPEATABLE
    bounded: ClassVar[bool] = True
    Args = WebFetchArgs

    async def run(self, args: WebFetchArgs, ctx: ToolContext) -> ToolResult:
        url = args.url.strip()
        try:
            found = await ctx.web.page(url)
        except FetchError as error:
            return ToolResult.error(error.code, _told(f"{url} was not read", f"{error}.", url), {"url": url})
        if isinstance(found, Moved):
            return _moved(url, found)
        return await asyncio.to_thread(_part, found, args.page, ctx.limits.read_chars)


def _moved(url: str, moved: Moved) -> ToolResult:
    to = cleaned(moved.url)[:URL_CHARS]
    told = _told(f"{url} redirects to another host, which was not followed", to, url)
    return ToolResult(True, f"{told}\nTo read that, call web_fetch with it.", {"url": url, "redirect": to})


def _told(what: str, said: str, url: str) -> str:
    """The server has a hand in what is said."""
    return f"{cleaned(what)}:\n{fenced(said[:URL_CHARS], url)}"


def _part(page: Page, number: int, limit_chars: int) -> ToolResult:
    """Of a large page no more is cleaned than is shown."""
    parts = split(short_lines(without_comments(page.text)), limit_chars)
    data = {"url": page.url, "content_type": page.content_type, "page": number, "pages": len(parts)}
    if number > len(parts):
        text = f"{page.url} has {count_of(len(parts), 'part')}, so there is no part {number}."
        return ToolResult.error("past_the_end", text, data)
    content = fenced(parts[number - 1] or "(The page has no text.)", page.url)
    if number < len(parts):
        content += f"\n(Part {number} of {len(parts)}. Use page={number + 1} to continue.)"
    return ToolResult(True, content, data)


def split(text: str, limit_chars: int) -> list[str]:
    """In parts of at most so many characters, between lines where the lines allow it. At least one part."""
    parts = []
    while len(text) > limit_chars:
        end = text.rfind("\n", limit_chars // 2, limit_chars) + 1 or limit_chars
        parts.append(text[:end])
        text = text[end:]
    return [*parts, text]
